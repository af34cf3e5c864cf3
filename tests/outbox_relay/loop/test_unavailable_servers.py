"""A relay waits out what Redis and PostgreSQL do, and says so once."""

import threading
import time
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
from outbox_relay.broker import open_broker
from outbox_relay.loop.pacing import Pacing
from outbox_relay.loop.reaper import Reaper, SweepResult
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import connect
from shared.rq_format.ids import job_id
from tests.addresses import with_login, with_parameter
from tests.failover.demotion import demotable_redis
from tests.failover.redis_pair import waiting_jobs
from tests.failover.sentinels import role, watched_pair
from tests.outbox_relay.loop.running import OUTAGES, add, is_published, running, settings
from tests.waiting import wait_until


def test_an_absent_redis_is_logged_once_and_waited_out(database_url: str, own_redis: RedisServer) -> None:
    own_redis.stop()
    id_ = add(database_url)

    with running(settings(database_url, own_redis.url)) as relay:
        wait_until(relay.outages, 5, "the outage to be logged")
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
    pacing = Pacing(longest_outage_pause_seconds=0.25, reap_seconds=3.0)
    with own_redis.client() as client:
        client.set("full", "x" * 1_000_000)
        client.config_set("maxmemory", "1mb")
    with running(settings(database_url, own_redis.url), pacing=pacing) as relay:
        wait_until(lambda: began, 5, "the first sweep")
        add(database_url)
        wait_until(relay.outages, 5, "the outage to be logged")
        wait_until(lambda: len(began) == 3, 20, "two sweeps more, the first since Redis might be empty")

    assert began[1] - began[0] < 3 <= began[2] - began[1]


def test_an_absent_postgresql_is_logged_once_and_waited_out(own_postgres: PostgresServer, redis_url: str) -> None:
    url = own_postgres.url("outbox")
    own_postgres.kill()

    with running(settings(url, redis_url)) as relay:
        wait_until(relay.outages, 5, "the outage to be logged")
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
        wait_until(relay.outages, 5, "the outage to be logged")

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


def test_no_password_is_logged(redis_url: str, database_url: str) -> None:
    with_password = with_parameter(with_login(database_url, "nobody:hunter2"), "dbname=absent")

    with running(settings(with_password, redis_url)) as relay:
        wait_until(relay.outages, 5, "the outage to be logged")

    assert "hunter2" not in str(relay.logs)


def test_a_relay_that_froze_in_the_middle_of_a_batch_changes_nothing_and_logs_it(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
