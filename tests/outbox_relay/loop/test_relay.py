"""What a relay does beside publishing: heartbeat, pruning, draining, and its shares of the time."""

import time
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest

from outbox_relay.broker import open_broker
from outbox_relay.loop.maintenance.pruner import PRUNED_AT_ONCE, Pruner
from outbox_relay.loop.pacing import POLLING_SHARE, PRUNING_SHARE, REAPING_SHARE, Pacing
from outbox_relay.loop.reaper import Reaper, SweepResult
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import connect
from tests.outbox_relay.loop.running import LONG_POLL, add, is_published, listens, running, settings
from tests.rows import add_message
from tests.waiting import wait_until


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
