"""What somebody else put where the relay keeps something in Redis: it goes on, and what it cannot use it names."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
import structlog
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import Broker, open_broker
from outbox_relay.loop.publishing.publisher import Publisher
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from shared.rq_format.ids import job_id
from tests.addresses import with_login
from tests.outbox_relay.loop.publishing.publishers import publisher_to
from tests.redis_keys import KEYS, as_text
from tests.rows import add_message, message
from tests.settings.relay import relay_settings
from tests.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]

MARKER = KEYS.epoch_marker
TEMPLATE = KEYS.job_template
NAMES = KEYS.queues
CRITICAL = KEYS.queue("critical")

VALUES: dict[str, Callable[[Redis, str], object]] = {
    "one byte": lambda redis, key: redis.set(key, b"\xff"),
    "no byte": lambda redis, key: redis.set(key, b""),
    "very long": lambda redis, key: redis.set(key, b"x" * 40_000),
    "almost ours": lambda redis, key: redis.set(key, b"f" * 31 + b"\n"),
    "list": lambda redis, key: redis.rpush(key, "x"),
    "hash": lambda redis, key: redis.hset(key, "field", "x"),
    "set": lambda redis, key: redis.sadd(key, "x"),
    "sorted set": lambda redis, key: redis.zadd(key, {"x": 1}),
    "stream": lambda redis, key: redis.xadd(key, {"field": "x"}),
}


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@contextmanager
def relay_of(database_url: str, redis_url: str) -> Iterator[Relay]:
    relay = Relay(relay_settings(database_url, redis_url), open_broker(redis_url, RQ_KEY_PREFIX, 60), WakeupPipe())
    with closing(relay):
        yield relay


@pytest.mark.parametrize("kind", VALUES)
def test_a_foreign_value_at_a_key_of_ours_stops_nothing(
    connection: Connection, database_url: str, redis_url: str, redis: Redis, kind: str
) -> None:
    def overwrite() -> None:
        for key in (MARKER, TEMPLATE, NAMES):
            redis.delete(key)
            VALUES[kind](redis, key)

    overwrite()
    forgotten = add_message(connection, status="published")

    with relay_of(database_url, redis_url) as relay:
        relay.run_once()
        first = message(connection, forgotten)
        overwrite()
        second = add_message(connection)
        relay.run_once()

    assert (first["status"], first["generation"]) == ("published", 1)
    assert message(connection, second)["status"] == "published"
    assert sorted(Queue("default", connection=redis).job_ids) == [job_id(forgotten, 1), job_id(second, 0)]


def test_jobs_that_were_pushed_before_the_marker_was_overwritten_are_found_and_stay(
    connection: Connection, database_url: str, redis_url: str, redis: Redis
) -> None:
    ids = [add_message(connection) for _ in range(3)]
    with relay_of(database_url, redis_url) as relay:
        relay.run_once()
    redis.set(MARKER, b"\xff")

    with relay_of(database_url, redis_url) as relay:
        relay.run_once()

    assert Queue("default", connection=redis).job_ids == [job_id(id_, 0) for id_ in ids]
    assert {message(connection, id_)["generation"] for id_ in ids} == {0}


def test_a_queue_s_key_that_holds_no_list_stops_that_queue_alone_and_is_named(
    connection: Connection, publisher: Publisher, redis: Redis
) -> None:
    waiting = [add_message(connection, queue="critical") for _ in range(3)]
    going = add_message(connection, queue="default")
    redis.set(CRITICAL, "x")

    with structlog.testing.capture_logs() as logs:
        published = [publisher.publish_batch(connection, 2), publisher.publish_batch(connection, 2)]
    redis.delete(CRITICAL)
    with structlog.testing.capture_logs() as later_logs:
        wait_until(lambda: publisher.publish_batch(connection, 10) == len(waiting), 10, "the queue to be tried again")

    assert published == [1, 0]
    assert message(connection, going)["status"] == "published"
    assert Queue("critical", connection=redis).job_ids == [job_id(id_, 0) for id_ in waiting]
    blocked = [line for line in logs if line["event"] == "queue.blocked"]
    assert [(line["log_level"], line["key"]) for line in blocked] == [("error", CRITICAL)]
    assert [line["key"] for line in later_logs if line["event"] == "queue.unblocked"] == [CRITICAL]


def test_the_jobs_that_stood_in_an_overwritten_list_are_pushed_again(
    connection: Connection, database_url: str, redis_url: str, redis: Redis
) -> None:
    id_ = add_message(connection, queue="critical", status="published")
    redis.set(CRITICAL, "x")
    with relay_of(database_url, redis_url) as relay:
        relay.run_once()
        assert message(connection, id_)["status"] == "pending"
        redis.delete(CRITICAL)
        wait_until(lambda: relay.drain() == 1, 10, "the queue to be tried again")

    assert Queue("critical", connection=redis).job_ids == [job_id(id_, 1)]


@pytest.fixture
def url_without_info(redis: Redis, redis_url: str) -> Iterator[str]:
    rights: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"], "commands": ["-info"]}
    redis.acl_setuser("no-info", enabled=True, passwords=["+x"], **rights)
    yield with_login(redis_url, "no-info:x")
    redis.acl_deluser("no-info")


def test_a_redis_that_refuses_info_is_used_without_it(
    connection: Connection, url_without_info: str, redis: Redis
) -> None:
    id_ = add_message(connection)
    with closing(open_broker(url_without_info, RQ_KEY_PREFIX, 60)) as broker, structlog.testing.capture_logs() as logs:
        assert publisher_to(broker).publish_batch(connection, 10) == 1
        epochs = [message(connection, id_)["broker_epoch"], broker.epoch(), broker.read_lists(set())[1]]

    assert len(set(epochs)) == 1
    assert epochs[0] == f"{as_text(redis.get(MARKER))}/-"
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["redis.info_refused"]


def test_a_right_that_is_given_back_is_used(url_without_info: str, redis: Redis, broker: Broker) -> None:
    with closing(open_broker(url_without_info, RQ_KEY_PREFIX, 60)) as limited:
        limited.push([])
        assert limited.epoch() != broker.epoch()
        redis.acl_setuser("no-info", enabled=True, commands=["+info"])

        limited.push([])

        assert limited.epoch() == broker.epoch()
