"""A long backlog and a Redis that loses its data: how often jobs are pushed again, and how long the reaper takes."""

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import psycopg
from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import Broker, open_broker
from outbox_relay.loop.publishing.publisher import Publisher
from outbox_relay.loop.reaper import Reaper
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.database.connections import connect
from tests.redis_keys import KEYS
from tests.settings.relay import relay_settings
from tests.waiting import wait_until

PUBLISH_LEASE_SECONDS: Final = 30.0
_Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True)
class Waiting:
    """What an hour of waiting in Redis cost."""

    messages: int
    rounds: int
    pushed_again: int
    slowest_round_seconds: float
    """A round over all of them, however many steps the reaper makes of it."""


@dataclass(frozen=True)
class Drained:
    """What the reaper pushed again while workers drained the backlog."""

    messages: int
    rounds: int
    pushed_again: int


@dataclass(frozen=True)
class Amnesia:
    """How long an emptied Redis took to hold every message again."""

    messages: int
    seconds: float


def waiting(database_url: str, redis_url: str, messages: int, minutes: float) -> Waiting:
    """Leave messages in Redis with no worker; every lease ends as often as it would in that time."""
    with connect(database_url, "proof") as connection, closing(_broker(redis_url)) as broker:
        _publish(connection, broker, messages)
        reaper = Reaper(broker, publish_lease_seconds=PUBLISH_LEASE_SECONDS)
        rounds = max(1, int(minutes * 60 / PUBLISH_LEASE_SECONDS))
        slowest = 0.0
        for _ in range(rounds):
            connection.execute("UPDATE outbox SET lease_until = now() - interval '1 s'")
            renewed, seconds = _renew_all(reaper, connection)
            slowest = max(slowest, seconds)
            assert renewed == messages, renewed
        return Waiting(messages, rounds, _generations(connection), slowest)


def drained(database_url: str, redis_url: str, messages: int, workers_take: int) -> Drained:
    """Pop and claim as workers `workers_take` messages between two rounds, until none is left."""
    with (
        connect(database_url, "proof") as connection,
        closing(_broker(redis_url)) as broker,
        Redis.from_url(redis_url) as redis,
    ):
        _publish(connection, broker, messages)
        reaper = Reaper(broker, publish_lease_seconds=PUBLISH_LEASE_SECONDS)
        rounds = pushed_again = 0
        while popped := redis.lpop(KEYS.queue("default"), workers_take):
            connection.execute("UPDATE outbox SET lease_until = now() - interval '1 s' WHERE status = 'published'")
            found = reaper.reap_published(connection)
            pushed_again += found.returned_by_lease + found.returned_by_epoch
            rounds += 1
            connection.execute(
                "DELETE FROM outbox WHERE id = ANY(%s)",
                [[int(job.split(b"-")[1]) for job in popped]],
            )
        return Drained(messages, rounds, pushed_again)


def amnesia(database_url: str, redis_url: str, messages: int) -> Amnesia:
    """Empty Redis under a running relay and wait until every message stands in a list again."""
    settings = relay_settings(database_url, redis_url, publish_lease_seconds=PUBLISH_LEASE_SECONDS)
    wakeup = WakeupPipe()
    relay = Relay(settings, _broker(redis_url), wakeup)
    thread = threading.Thread(target=relay.run)
    with connect(database_url, "proof") as connection, Redis.from_url(redis_url) as redis:
        _append(connection, messages)
        thread.start()
        try:
            _wait_for_jobs(redis, messages)
            redis.flushall()
            started = time.perf_counter()
            _wait_for_jobs(redis, messages)
            seconds = time.perf_counter() - started
        finally:
            relay.stop()
            thread.join(10)
            relay.close()
            wakeup.close()
    return Amnesia(messages, seconds)


def _renew_all(reaper: Reaper, connection: _Connection) -> tuple[int, float]:
    """Check every message as the relay does: step after step while there are more."""
    started = time.perf_counter()
    found = reaper.reap_published(connection)
    renewed = found.renewed
    while found.is_partial:
        found = reaper.reap_published(connection)
        renewed += found.renewed
    return renewed, time.perf_counter() - started


def _wait_for_jobs(redis: Redis, messages: int) -> None:
    wait_until(lambda: redis.llen(KEYS.queue("default")) == messages, 60, "every job to stand in the list")


def _broker(redis_url: str) -> Broker:
    return open_broker(redis_url, RQ_KEY_PREFIX, 60)


def _append(connection: _Connection, messages: int) -> None:
    connection.execute(
        "INSERT INTO outbox (task, payload, queue) SELECT 't', '{}', 'default' FROM generate_series(1, %s)", [messages]
    )


def _publish(connection: _Connection, broker: Broker, messages: int) -> None:
    _append(connection, messages)
    publisher = Publisher(broker, publish_lease_seconds=PUBLISH_LEASE_SECONDS, probe_timeout_seconds=60)
    while publisher.publish_batch(connection, 1000):
        pass


def _generations(connection: _Connection) -> int:
    """Each push beyond the first of a message raised its generation."""
    row = connection.execute("SELECT sum(generation)::int FROM outbox").fetchone()
    assert row is not None
    return int(str(row[0]))
