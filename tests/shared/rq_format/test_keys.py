"""The keys have the names that RQ itself gives them."""

from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.results import Result
from rq.suspension import WORKERS_SUSPENDED
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from shared.rq_format.keys import MARKER_CHARACTERS, Keys, is_marker
from tests.redis_keys import KEYS


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def test_the_keys_are_rqs(redis: Redis) -> None:
    queue = Queue("critical", connection=redis)
    by_rq = {
        KEYS.queue("critical"): queue.key,
        KEYS.queues: Queue.redis_queues_keys,
        KEYS.job("some-id"): Job.key_for("some-id"),
        KEYS.results("some-id"): Result.get_key("some-id"),
        KEYS.failed("critical"): FailedJobRegistry(queue=queue).key,
        KEYS.worker("one"): Worker([queue], name="one", connection=redis).key,
        KEYS.workers: REDIS_WORKER_KEYS,
        KEYS.workers_of("critical"): WORKERS_BY_QUEUE_KEY % "critical",
        KEYS.suspended: WORKERS_SUSPENDED,
    }

    assert list(by_rq) == list(by_rq.values())


def test_the_epochs_marker_is_the_one_that_a_relay_of_another_version_reads() -> None:
    assert Keys("rq").epoch_marker == "rq:outbox:epoch"
    assert KEYS.epoch_marker.startswith(f"{RQ_KEY_PREFIX}:")


@pytest.mark.parametrize(
    "value", [None, b"", b"f" * (MARKER_CHARACTERS - 1), b"f" * MARKER_CHARACTERS + b"\n", b"g" * MARKER_CHARACTERS]
)
def test_what_is_no_marker(value: bytes | None) -> None:
    assert not is_marker(value)
    assert is_marker(b"0123456789abcdefABCDEF0123456789")
