"""The relay's loop in a thread of the test: waking, sleeping, and outages that it waits out by itself."""

import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX

from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from outbox_relay.broker import ASK_SENTINELS_SECONDS, open_broker
from outbox_relay.loop.maintenance.pruner import PRUNED_AT_ONCE, Pruner
from outbox_relay.loop.pacing import POLLING_SHARE, PRUNING_SHARE, REAPING_SHARE, Pacing
from outbox_relay.loop.reaper import Reaper, SweepResult
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import connect
from shared.doubling_pause import DoublingPause
from shared.outbox.messages import NOTIFY_CHANNEL
from shared.rq_format.ids import job_id
from shared.settings.relay import RelaySettings
from tests.addresses import with_login, with_parameter
from tests.failover.demotion import demotable_redis
from tests.failover.redis_pair import waiting_jobs
from tests.failover.sentinels import role, watched_pair
from tests.rows import add_message, message
from tests.settings.relay import relay_settings
from tests.waiting import wait_until

LONG_POLL = 600.0
Logs = list[MutableMapping[str, Any]]


def settings(database_url: str, redis_url: str, *, poll_seconds: float = 0.1) -> RelaySettings:
    return relay_settings(database_url, redis_url, batch_size=100, poll_seconds=poll_seconds)


OUTAGES = ("redis.unavailable", "postgresql.unavailable")


@dataclass
class RunningRelay:
    relay: Relay
    thread: threading.Thread
    logs: Logs

    def events(self, name: str) -> Logs:
        return [line for line in self.logs if line["event"] == name]

    def outages(self) -> Logs:
        return [line for line in self.logs if line["event"] in OUTAGES]


@contextmanager
def running(
    chosen: RelaySettings,
    *,
    pacing: Pacing | None = None,
    gathering: DoublingPause | None = None,
    ask_sentinels_seconds: float = ASK_SENTINELS_SECONDS,
) -> Iterator[RunningRelay]:
    """Run a relay in a thread; at the end it must stop within seconds."""
    wakeup = WakeupPipe()
    broker = open_broker(
        chosen.redis_url,
        chosen.key_prefix,
        chosen.run_lease_seconds,
        ask_sentinels_seconds=ask_sentinels_seconds,
    )
    relay = Relay(chosen, broker, wakeup, pacing=pacing, gathering=gathering)
    thread = threading.Thread(target=relay.run)
    with structlog.testing.capture_logs() as logs:
        thread.start()
        try:
            yield RunningRelay(relay, thread, logs)
        finally:
            relay.stop()
            thread.join(10)
            relay.close()
            wakeup.close()
    assert not thread.is_alive()


def is_published(database_url: str, id_: int) -> Callable[[], bool]:
    def look() -> bool:
        with connect(database_url, "test") as connection:
            return bool(message(connection, id_)["status"] == "published")

    return look


def listens(database_url: str) -> bool:
    with connect(database_url, "test") as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        ).fetchone()
    return row == (1,)


def add(database_url: str, **columns: Any) -> int:
    with connect(database_url, "test") as connection:
        return add_message(connection, **columns)


def notify(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        connection.execute("SELECT pg_notify(%s, '')", [NOTIFY_CHANNEL])


def test_a_message_is_found_by_polling(database_url: str, redis_url: str) -> None:
    with running(settings(database_url, redis_url, poll_seconds=0.05)):
        id_ = add(database_url)

        wait_until(is_published(database_url, id_), 5, "the message to be published")


def test_the_doorbell_wakes_a_sleeping_relay(database_url: str, redis_url: str) -> None:
    with running(settings(database_url, redis_url, poll_seconds=LONG_POLL)):
        wait_until(lambda: listens(database_url), 5, "the relay to listen")
        id_ = add(database_url)
        notify(database_url)

        wait_until(is_published(database_url, id_), 5, "the message to be published")


def test_a_sleeping_relay_wakes_for_the_next_message_that_becomes_due(database_url: str, redis_url: str) -> None:
    with connect(database_url, "test") as connection:
        id_ = add_message(connection)
        connection.execute("UPDATE outbox SET due_at = now() + interval '1 s'")

    with running(settings(database_url, redis_url, poll_seconds=LONG_POLL)):
        wait_until(is_published(database_url, id_), 10, "the message to be published")


def test_no_sleep_is_longer_than_the_time_between_two_heartbeats(database_url: str, redis_url: str) -> None:
    gathering = RecordedPause()
    chosen = settings(database_url, redis_url, poll_seconds=LONG_POLL)
    with running(chosen, pacing=Pacing(beat_seconds=0.05), gathering=gathering):
        wait_until(lambda: "nothing is due" in gathering.calls, 10, "the relay to sleep")
        id_ = add(database_url)

        wait_until(is_published(database_url, id_), 5, "the message to be published")


def test_a_lost_doorbell_leaves_polling_alone_at_work(database_url: str, redis_url: str) -> None:
    with running(settings(database_url, redis_url)) as relay:
        wait_until(lambda: listens(database_url), 5, "the relay to listen")
        with connect(database_url, "test") as connection:
            connection.execute(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'outbox-relay-listener'
                """
            )
        wait_until(lambda: relay.events("listener.disconnected"), 5, "the relay to notice")
        id_ = add(database_url)

        wait_until(is_published(database_url, id_), 5, "the message to be published")
        assert relay.outages() == []


def test_an_absent_redis_is_told_once_and_waited_out(database_url: str, own_redis: RedisServer) -> None:
    own_redis.stop()
    id_ = add(database_url)

    with running(settings(database_url, own_redis.url)) as relay:
        wait_until(relay.outages, 5, "the outage to be told")
        own_redis.start()
        wait_until(is_published(database_url, id_), 15, "the message to be published")

    assert len(relay.events("redis.unavailable")) == 1
    assert len(relay.events("redis.recovered")) == 1


def test_a_demoted_redis_is_left_for_its_successor(database_url: str, tmp_path: Path) -> None:
    with demotable_redis(tmp_path) as redis, running(settings(database_url, redis.url)) as relay:
        before = add(database_url)
        wait_until(is_published(database_url, before), 5, "the message to be published")
        redis.demote()
        id_ = add(database_url)

        wait_until(is_published(database_url, id_), 15, "the message to be published")
        with redis.second.client() as client:
            assert job_id(id_, 0) in Queue("default", connection=client).job_ids
        assert relay.events("messages.returned") == []


def test_a_replaced_master_is_left_before_sentinel_makes_it_a_replica(database_url: str, tmp_path: Path) -> None:
    with watched_pair(tmp_path) as pair, running(settings(database_url, pair.url), ask_sentinels_seconds=0.5) as relay:
        wait_until(is_published(database_url, add(database_url)), 5, "the message to be published")
        pair.sentinels.order_failover()
        pair.wait_for_promotion()

        pushed_before = waiting_jobs(pair.second)
        wait_until(
            lambda: add(database_url) and waiting_jobs(pair.second) - pushed_before,
            5,
            "a message to be pushed to the new master",
        )
        assert role(pair.first) == "master"
        assert relay.outages() == []


def test_a_full_redis_does_not_make_the_reaper_take_more_than_its_share(
    database_url: str, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    def sweep(_reaper: Reaper, _connection: object) -> SweepResult:
        began.append(time.monotonic())
        return SweepResult()

    monkeypatch.setattr(Reaper, "reap_published", sweep)
    pacing = Pacing(longest_outage_pause_seconds=0.25, reap_seconds=2.0)
    with own_redis.client() as client:
        client.set("full", "x" * 1_000_000)
        client.config_set("maxmemory", "1mb")
    with running(settings(database_url, own_redis.url), pacing=pacing) as relay:
        wait_until(lambda: began, 5, "the first sweep")
        add(database_url)
        wait_until(relay.outages, 5, "the outage to be told")
        wait_until(lambda: len(began) == 3, 20, "two sweeps more, the first since Redis might be empty")

    assert began[2] - began[1] >= 2


def test_a_locked_heartbeat_keeps_nothing_back(database_url: str, redis_url: str) -> None:
    with (
        connect(database_url, "somebody") as connection,
        connection.transaction(),
    ):
        connection.execute("LOCK TABLE outbox_relays")
        with running(settings(database_url, redis_url)) as relay:
            id_ = add(database_url)

            wait_until(is_published(database_url, id_), 10, "the message to be published")
            wait_until(lambda: bool(relay.events("heartbeat.failed")), 10, "the heartbeat's failure in the log")
            assert [line["error"] for line in relay.events("heartbeat.failed")] == [
                "canceling statement due to lock timeout (55P03)"
            ]
            assert relay.outages() == []


def test_an_absent_postgresql_is_told_once_and_waited_out(own_postgres: PostgresServer, redis_url: str) -> None:
    url = own_postgres.url("outbox")
    own_postgres.kill()

    with running(settings(url, redis_url)) as relay:
        wait_until(relay.outages, 5, "the outage to be told")
        own_postgres.start()
        id_ = add(url)
        wait_until(is_published(url, id_), 15, "the message to be published")

    assert len(relay.events("postgresql.unavailable")) == 1
    assert relay.outages()[0]["error"] == f"127.0.0.1:{own_postgres.port}: Connection refused"


def test_a_killed_postgresql_is_waited_out_at_work(own_postgres: PostgresServer, redis_url: str) -> None:
    url = own_postgres.url("outbox")
    with running(settings(url, redis_url)):
        first = add(url)
        wait_until(is_published(url, first), 5, "the first message to be published")
        own_postgres.kill()
        own_postgres.start()
        second = add(url)

        wait_until(is_published(url, second), 15, "the second message to be published")


def test_a_missing_schema_is_named_with_its_remedy(empty_database_url: str, redis_url: str) -> None:
    with running(settings(empty_database_url, redis_url)) as relay:
        wait_until(relay.outages, 5, "the outage to be told")

    assert "schema.sql" in relay.outages()[0]["error"]


def test_an_emptied_redis_is_refilled_within_seconds(database_url: str, own_redis: RedisServer) -> None:
    with running(settings(database_url, own_redis.url)):
        id_ = add(database_url)
        wait_until(is_published(database_url, id_), 5, "the message to be published")
        with own_redis.client() as client:
            client.flushall()

            wait_until(
                lambda: Queue("default", connection=client).job_ids == [job_id(id_, 1)],
                5,
                "the message to be published again",
            )


def test_old_history_is_pruned(database_url: str, redis_url: str) -> None:
    with connect(database_url, "test") as connection:
        connection.execute(
            """
            INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                         failures, created_at, finished_at)
            SELECT n, 't', '{}', 'default', 'done', now(), 0, 1, 10, '[]', now(), now() - interval '8 days'
              FROM generate_series(1, 1200) AS n
            """
        )

    chosen = settings(database_url, redis_url, poll_seconds=LONG_POLL)
    with running(chosen), connect(database_url, "test") as connection:
        wait_until(
            lambda: connection.execute("SELECT count(*) FROM outbox_finished").fetchone() == (0,),
            10,
            "the history to be pruned",
        )


@pytest.mark.parametrize("poll_seconds", [0.05, LONG_POLL])
def test_it_stops_at_once(database_url: str, redis_url: str, poll_seconds: float) -> None:
    with running(settings(database_url, redis_url, poll_seconds=poll_seconds)) as relay:
        wait_until(lambda: listens(database_url), 5, "the relay to listen")
        relay.relay.stop()
        relay.thread.join(5)

        assert not relay.thread.is_alive()


def test_no_password_is_told(redis_url: str, database_url: str) -> None:
    with_password = with_parameter(with_login(database_url, "nobody:hunter2"), "dbname=absent")

    with running(settings(with_password, redis_url)) as relay:
        wait_until(relay.outages, 5, "the outage to be told")

    assert "hunter2" not in str(relay.logs)


def test_a_relay_that_froze_in_the_middle_of_a_batch_changes_nothing_and_logs_it(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.database.connections.IDLE_IN_TRANSACTION_SECONDS", 1)
    chosen = settings(database_url, redis_url)
    wakeup = WakeupPipe()
    broker = open_broker(redis_url, RQ_KEY_PREFIX, 60)
    relay = Relay(chosen, broker, wakeup)
    push = broker.push
    stood_still = threading.Event()

    def push_and_stand_still(rows: Any) -> str:
        epoch = push(rows)
        if not stood_still.is_set():
            stood_still.set()
            with connect(database_url, "test") as connection:
                wait_until(lambda: no_transaction_is_open(connection), 10, "PostgreSQL to end the transaction")
        return epoch

    monkeypatch.setattr(broker, "push", push_and_stand_still)
    id_ = add(database_url)
    with structlog.testing.capture_logs() as logs:
        thread = threading.Thread(target=relay.run)
        thread.start()
        wait_until(is_published(database_url, id_), 15, "the message to be published after all")
        relay.stop()
        thread.join(5)
    relay.close()
    wakeup.close()

    assert ["froze" in line["error"] for line in logs if line["event"] in OUTAGES] == [True]
    with Redis.from_url(redis_url) as client:
        assert Queue("default", connection=client).job_ids == [job_id(id_, 0)] * 2


def no_transaction_is_open(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(
        """
        SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'outbox-relay' AND xact_start IS NOT NULL
        """
    ).fetchone()
    return row == (0,)


def test_a_drain_takes_what_another_relay_gives_back_meanwhile(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(database_url, redis_url)
    broker = open_broker(chosen.redis_url, chosen.key_prefix, chosen.run_lease_seconds)
    with connect(database_url, "another relay") as other, closing(WakeupPipe()) as wakeup:
        held, _free = (add_message(other, due_at="2020-01-01T00:00:00Z") for _ in range(2))
        other.execute("BEGIN")
        other.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [held])
        push = broker.push

        def push_while_another_relay_releases(rows: Any) -> str:
            other.execute("ROLLBACK")
            return push(rows)

        monkeypatch.setattr(broker, "push", push_while_another_relay_releases)
        with closing(Relay(chosen, broker, wakeup)) as relay:
            drained = relay.drain()

    assert drained == 2


@pytest.mark.parametrize(
    ("owner", "step", "outcome", "share"),
    [
        (Reaper, "reap_published", SweepResult(is_partial=True, expired=1), REAPING_SHARE),
        (Reaper, "reap_published", SweepResult(), POLLING_SHARE),
        (Pruner, "step", PRUNED_AT_ONCE, PRUNING_SHARE),
    ],
)
def test_reaping_and_pruning_never_take_more_than_their_share_of_the_time(
    database_url: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    step: str,
    outcome: object,
    share: float,
) -> None:
    began: list[float] = []

    def long_step(_owner: object, _connection: object) -> object:
        began.append(time.monotonic())
        time.sleep(0.03)
        return outcome

    monkeypatch.setattr(owner, step, long_step)
    chosen = settings(database_url, redis_url)
    broker = open_broker(chosen.redis_url, chosen.key_prefix, chosen.run_lease_seconds)
    with (
        closing(WakeupPipe()) as wakeup,
        closing(Relay(chosen, broker, wakeup, pacing=Pacing(reap_seconds=0.01))) as relay,
    ):
        passes = 0
        while len(began) < 3:
            relay.run_once()
            passes += 1

    assert passes > 3
    assert all(second - first >= 0.03 / share for first, second in pairwise(began))


class RecordedPause(DoublingPause):
    """A gathering pause that records what the relay asks of it."""

    def __init__(self) -> None:
        super().__init__(0.002, 0.064)
        self.calls: list[str] = []

    def next(self) -> float:
        self.calls.append("gather")
        return super().next()

    def reset(self) -> None:
        self.calls.append("nothing is due")
        super().reset()


def test_messages_gather_after_a_small_batch_until_nothing_is_due(database_url: str, redis_url: str) -> None:
    gathering = RecordedPause()
    with running(settings(database_url, redis_url, poll_seconds=LONG_POLL), gathering=gathering):
        wait_until(lambda: gathering.calls and listens(database_url), 10, "the relay to sleep")
        add(database_url)
        notify(database_url)
        wait_until(lambda: gathering.calls[-2:] == ["gather", "nothing is due"], 10, "the relay to publish and sleep")
