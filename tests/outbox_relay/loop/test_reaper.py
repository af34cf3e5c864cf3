from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job

from embedded.servers.redis import RedisServer
from outbox_relay.broker import Broker, BrokerUnavailableError, open_broker
from outbox_relay.loop.pacing import POP_TO_CLAIM_SECONDS
from outbox_relay.loop.publisher import Publisher
from outbox_relay.loop.reaper import Reaper, SweepResult
from shared.database.connections import connect, transaction
from shared.outbox import publishing, reaping
from shared.outbox.messages import JobRef
from shared.rq_format.ids import job_id
from tests.clock import Clock
from tests.rows import add_message, message

Connection = psycopg.Connection[tuple[Any, ...]]
LEASE = 30.0
NO_GRACE = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def redis(emptiable_redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(emptiable_redis_url) as client:
        yield client


@pytest.fixture
def broker(emptiable_redis_url: str) -> Iterator[Broker]:
    with closing(open_broker(emptiable_redis_url, RQ_KEY_PREFIX, 60)) as open_broker_:
        yield open_broker_


@pytest.fixture
def reaper(broker: Broker, clock: Clock) -> Reaper:
    return Reaper(broker, publish_lease_seconds=LEASE, clock=clock)


def publish(connection: Connection, broker: Broker) -> None:
    Publisher(broker, publish_lease_seconds=LEASE, probe_timeout_seconds=60).publish_batch(connection, 1000)


def end_leases(connection: Connection) -> None:
    connection.execute(
        "UPDATE outbox SET lease_until = clock_timestamp() - interval '1 s' WHERE lease_until IS NOT NULL"
    )


def jobs(redis: Redis) -> list[str]:
    return Queue("default", connection=redis).job_ids


# --- running ---------------------------------------------------------------------------------------------------------


def test_a_claim_whose_lease_is_over_is_pending_again_and_due_now(connection: Connection) -> None:
    id_ = add_message(connection, status="running", attempt=3)
    end_leases(connection)

    reaped = reaping.reap_running(connection, 10, NO_GRACE)

    row = message(connection, id_)
    assert [(each.id, each.status, each.attempt) for each in reaped] == [(id_, "pending", 3)]
    assert (row["status"], row["generation"], row["attempt"]) == ("pending", 1, 3)
    assert [(each["attempt"], each["maybe_accepted"]) for each in row["failures"]] == [(3, True)]
    assert connection.execute("SELECT due_at <= clock_timestamp() FROM outbox").fetchone() == (True,)


def test_messages_whose_worker_died_twice_do_not_come_back_in_step(connection: Connection) -> None:
    for _ in range(20):
        add_message(connection, status="running", claimed_at="2026-01-01T00:00:00Z")
    connection.execute("UPDATE outbox SET claimed_at = now() - interval '61 s', lease_until = now() - interval '1 s'")
    reaping.reap_running(connection, 100, NO_GRACE)
    connection.execute(
        """
        UPDATE outbox SET status = 'running', attempt = 2, claim_token = gen_random_uuid(),
                          claimed_at = now() - interval '61 s', lease_until = now() - interval '1 s'
        """
    )

    reaping.reap_running(connection, 100, NO_GRACE)

    waits = connection.execute("SELECT extract(epoch FROM due_at - now())::float8 FROM outbox").fetchall()
    seconds = [wait for (wait,) in waits]
    assert len({round(each) for each in seconds}) > 5
    assert -1 < min(seconds) <= max(seconds) <= 61


def test_a_worker_that_died_at_the_last_attempt_leaves_a_dead_letter(connection: Connection) -> None:
    id_ = add_message(connection, status="running", attempt=11)
    end_leases(connection)

    reaping.reap_running(connection, 10, NO_GRACE)

    row = message(connection, id_)
    assert (row["status"], row["generation"]) == ("dead", 0)
    assert "lease" in row["last_error"]


def test_a_claim_within_its_lease_is_left_alone(connection: Connection) -> None:
    add_message(connection, status="running")

    assert reaping.reap_running(connection, 10, NO_GRACE) == []


def test_nothing_is_reaped_right_after_the_start_of_postgresql(connection: Connection) -> None:
    add_message(connection, status="running")
    end_leases(connection)

    assert reaping.reap_running(connection, 10, grace_seconds=1e6) == []


def test_a_claim_that_is_being_acknowledged_is_left_alone(connection: Connection, database_url: str) -> None:
    id_ = add_message(connection, status="running")
    end_leases(connection)
    with connect(database_url, "test") as consumer, consumer.transaction():
        consumer.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [id_])

        assert reaping.reap_running(connection, 10, NO_GRACE) == []


def test_failures_are_kept_up_to_a_limit(connection: Connection) -> None:
    id_ = add_message(connection, status="running", attempt=1, max_retries=1000)
    for _ in range(25):
        end_leases(connection)
        reaping.reap_running(connection, 10, NO_GRACE)
        connection.execute(
            """
            UPDATE outbox SET status = 'running', attempt = attempt + 1, claim_token = gen_random_uuid(),
                              lease_until = now(), claimed_at = now()
            """
        )

    attempts = [each["attempt"] for each in message(connection, id_)["failures"]]
    assert attempts == list(range(6, 26))


# --- published -------------------------------------------------------------------------------------------------------


def test_a_message_within_its_lease_is_no_suspect(connection: Connection, broker: Broker, reaper: Reaper) -> None:
    add_message(connection)
    publish(connection, broker)

    assert reaper.reap_published(connection) == SweepResult()


def test_a_message_that_merely_waits_is_not_pushed_again(
    connection: Connection, broker: Broker, reaper: Reaper, clock: Clock, redis: Redis
) -> None:
    id_ = add_message(connection)
    publish(connection, broker)

    sweeps = []
    for _ in range(5):
        end_leases(connection)
        sweeps.append(reaper.reap_published(connection))
        clock.now += 600
        publish(connection, broker)

    assert sweeps == [SweepResult(renewed=1)] * 5
    assert jobs(redis) == [job_id(id_, 0)]


def test_a_lost_job_is_pushed_again_when_it_was_missing_in_two_rounds(
    connection: Connection, broker: Broker, reaper: Reaper, clock: Clock, redis: Redis
) -> None:
    id_ = add_message(connection)
    publish(connection, broker)
    redis.lpop(Queue("default", connection=redis).key)
    end_leases(connection)

    first = reaper.reap_published(connection)
    clock.now += POP_TO_CLAIM_SECONDS - 0.1
    too_early = reaper.reap_published(connection)
    clock.now += 0.2
    second = reaper.reap_published(connection)

    row = message(connection, id_)
    assert (first, too_early, second) == (SweepResult(), SweepResult(), SweepResult(returned_by_lease=1))
    assert [each.expired for each in (first, too_early, second)] == [1, 1, 1]
    assert (row["status"], row["generation"], row["attempt"]) == ("pending", 1, 0)
    publish(connection, broker)
    assert jobs(redis) == [job_id(id_, 1)]


def test_the_hash_of_a_lost_job_is_deleted(
    connection: Connection, broker: Broker, reaper: Reaper, clock: Clock, redis: Redis
) -> None:
    id_ = add_message(connection)
    publish(connection, broker)
    redis.lpop(Queue("default", connection=redis).key)
    end_leases(connection)
    assert Job.exists(job_id(id_, 0), connection=redis)

    reaper.reap_published(connection)
    clock.now += POP_TO_CLAIM_SECONDS
    reaper.reap_published(connection)

    assert not Job.exists(job_id(id_, 0), connection=redis)


def test_a_hash_that_cannot_be_deleted_hides_no_return(
    connection: Connection, broker: Broker, reaper: Reaper, monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    add_message(connection)
    publish(connection, broker)
    redis.flushall()

    def away(*_: object) -> None:
        raise BrokerUnavailableError("Redis cannot be used: TimeoutError")

    monkeypatch.setattr(Broker, "delete_orphans", away)

    assert reaper.reap_published(connection).returned_by_epoch == 1


def test_a_replica_is_not_asked_what_redis_holds(broker: Broker, own_redis: RedisServer, redis_url: str) -> None:
    primary = urlsplit(redis_url)
    with own_redis.client() as client:
        client.config_set("masterauth", str(primary.password))
        client.replicaof(str(primary.hostname), primary.port)
    with closing(open_broker(own_redis.url, RQ_KEY_PREFIX, 60)) as of_replica:
        with pytest.raises(BrokerUnavailableError, match="this is a replica: its data may be older"):
            of_replica.epoch()
        with pytest.raises(BrokerUnavailableError, match="this is a replica: its data may be older"):
            of_replica.read_lists(set())
    assert broker.epoch()


def test_a_message_that_was_claimed_between_two_rounds_is_left_alone(
    connection: Connection, broker: Broker, reaper: Reaper, clock: Clock, redis: Redis
) -> None:
    id_ = add_message(connection)
    publish(connection, broker)
    redis.lpop(Queue("default", connection=redis).key)
    end_leases(connection)
    reaper.reap_published(connection)
    connection.execute(
        """
        UPDATE outbox SET status = 'running', attempt = 1, claim_token = gen_random_uuid(), claimed_at = now(),
                          lease_until = now() + interval '1 h'
        """
    )
    clock.now += POP_TO_CLAIM_SECONDS

    assert reaper.reap_published(connection) == SweepResult()
    assert message(connection, id_)["status"] == "running"


def test_only_the_life_that_was_missed_is_returned(connection: Connection) -> None:
    id_ = add_message(connection, status="published", generation=2)

    assert reaping.return_missing(connection, [JobRef(id_, 1, "default")]) == []
    assert message(connection, id_)["status"] == "published"


def test_an_emptied_redis_is_noticed_at_once_and_everything_is_pushed_again(
    connection: Connection, broker: Broker, reaper: Reaper, redis: Redis
) -> None:
    ids = [add_message(connection) for _ in range(3)]
    publish(connection, broker)
    redis.flushall()

    found = reaper.reap_published(connection)
    publish(connection, broker)

    assert found == SweepResult(returned_by_epoch=3)
    assert jobs(redis) == [job_id(id_, 1) for id_ in ids]


def test_more_suspects_than_one_sweep_reads_are_left_to_the_next(
    connection: Connection, broker: Broker, redis: Redis
) -> None:
    for _ in range(5):
        add_message(connection)
    publish(connection, broker)
    redis.flushall()
    reaper = Reaper(broker, publish_lease_seconds=LEASE, expired_at_once=3)

    sweeps = [reaper.reap_published(connection) for _ in range(3)]

    assert sweeps == [
        SweepResult(returned_by_epoch=3, is_partial=True),
        SweepResult(returned_by_epoch=2),
        SweepResult(),
    ]


def test_a_wipe_between_push_and_commit_is_noticed(
    connection: Connection, broker: Broker, reaper: Reaper, redis: Redis
) -> None:
    id_ = add_message(connection)
    with transaction(connection):
        rows = publishing.take_batch(connection, 10).jobs
        epoch = broker.push(rows)
        redis.flushall()
        publishing.mark_published(connection, [id_], epoch, LEASE)

    assert reaper.reap_published(connection) == SweepResult(returned_by_epoch=1)


def test_another_relay_s_push_after_a_wipe_does_not_hide_it(
    connection: Connection, broker: Broker, reaper: Reaper, redis: Redis
) -> None:
    lost = add_message(connection)
    publish(connection, broker)
    redis.flushall()
    fresh = add_message(connection)
    publish(connection, broker)

    assert reaper.reap_published(connection) == SweepResult(returned_by_epoch=1)
    assert [message(connection, each)["generation"] for each in (lost, fresh)] == [1, 0]


def test_a_restart_that_kept_its_data_costs_a_new_lease_and_no_push(
    connection: Connection, own_redis: RedisServer
) -> None:
    add_message(connection)
    with closing(open_broker(own_redis.url, RQ_KEY_PREFIX, 60)) as broker:
        publish(connection, broker)
        own_redis.restart()
        epoch = broker.epoch()

        found = Reaper(broker, publish_lease_seconds=LEASE).reap_published(connection)

    assert found == SweepResult(renewed=1)
    assert connection.execute("SELECT broker_epoch FROM outbox").fetchone() == (epoch,)


def test_a_restart_with_older_data_is_mended(connection: Connection, own_redis: RedisServer) -> None:
    kept, lost = add_message(connection), add_message(connection, due_at="2100-01-01T00:00:00Z")
    own_redis.append_only = False
    own_redis.restart()
    with closing(open_broker(own_redis.url, RQ_KEY_PREFIX, 60)) as broker:
        publish(connection, broker)
        with own_redis.client() as client:
            client.save()
        connection.execute("UPDATE outbox SET due_at = now() WHERE id = %s", [lost])
        publish(connection, broker)
        own_redis.kill()
        own_redis.start()

        found = Reaper(broker, publish_lease_seconds=LEASE).reap_published(connection)

    assert found == SweepResult(renewed=1, returned_by_epoch=1)
    assert [message(connection, each)["status"] for each in (kept, lost)] == ["published", "pending"]


def test_rounds_of_two_relays_at_once_return_a_message_once(
    connection: Connection, broker: Broker, redis: Redis, database_url: str
) -> None:
    id_ = add_message(connection)
    publish(connection, broker)
    redis.flushall()
    rows = [JobRef(id_, 0, "default")]
    with connect(database_url, "test") as other, other.transaction():
        assert reaping.return_missing(other, rows) == rows
        assert reaping.return_missing(connection, rows) == []

    assert message(connection, id_)["generation"] == 1
