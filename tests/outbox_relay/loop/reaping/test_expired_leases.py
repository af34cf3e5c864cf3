"""Published messages whose lease is over: a job that waits is left, and a lost one is pushed again."""

from typing import Any

import psycopg
from redis import Redis
from rq import Queue
from rq.job import Job

from outbox_relay.broker import Broker
from outbox_relay.loop.pacing import POP_TO_CLAIM_SECONDS
from outbox_relay.loop.reaper import Reaper, SweepResult
from shared.rq_format.ids import job_id
from tests.clock import Clock
from tests.outbox_relay.loop.reaping.publishing import LEASE, jobs, publish
from tests.rows import add_message, end_leases, message

Connection = psycopg.Connection[tuple[Any, ...]]


def test_a_message_within_its_lease_is_left_alone(connection: Connection, broker: Broker, reaper: Reaper) -> None:
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


def test_a_lost_job_is_pushed_again_when_it_was_missing_in_two_sweeps(
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


def test_a_message_that_was_claimed_between_two_sweeps_is_left_alone(
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


def test_more_expired_leases_than_one_sweep_reads_are_left_to_the_next(
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
