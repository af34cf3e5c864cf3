"""What the relay writes is what RQ's own enqueue would have written."""

import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job, JobStatus
from rq.serializers import DefaultSerializer

from outbox_relay.broker import Broker, open_broker
from shared.outbox.messages import ENTRY_POINT
from shared.outbox.publishing import Row
from shared.rq_format.write import FAILURE_TTL_SECONDS, RESULT_TTL_SECONDS, job_id

ROW = Row(id=42, generation=3, queue="critical")
RUN_LEASE_SECONDS = 60.0
TIMES = {b"created_at", b"enqueued_at"}


@pytest.fixture
def redis(redis_url: str) -> Iterator["Redis[Any]"]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    with closing(open_broker(redis_url, RQ_KEY_PREFIX, RUN_LEASE_SECONDS)) as opened:
        yield opened


@pytest.fixture
def pushed(redis: "Redis[Any]", broker: Broker) -> dict[bytes, bytes]:
    broker.push([ROW])
    return redis.hgetall(Job.key_for(job_id(ROW)))


def enqueued_by_rq(redis: "Redis[Any]") -> dict[bytes, bytes]:
    job = Queue("critical", connection=redis).enqueue(
        ENTRY_POINT,
        42,
        job_id="by-rq",
        description="outbox message 42",
        job_timeout=660,
        result_ttl=RESULT_TTL_SECONDS,
        failure_ttl=FAILURE_TTL_SECONDS,
    )
    return redis.hgetall(job.key)


def test_the_hash_has_the_fields_and_values_that_rq_writes(redis: "Redis[Any]", pushed: dict[bytes, bytes]) -> None:
    by_rq = enqueued_by_rq(redis)

    assert unpacked(pushed) == unpacked(by_rq)


def unpacked(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The hash without its times, the call uncompressed: zlib's level is no part of the format."""
    plain = {name: value for name, value in fields.items() if name not in TIMES}
    return {**plain, b"data": zlib.decompress(fields[b"data"])}


def test_the_times_look_like_rq_s(redis: "Redis[Any]", pushed: dict[bytes, bytes]) -> None:
    by_rq = enqueued_by_rq(redis)

    for name in TIMES:
        assert len(pushed[name]) == len(by_rq[name])
        assert (pushed[name][10:11], pushed[name][-1:]) == (by_rq[name][10:11], by_rq[name][-1:])


@pytest.mark.usefixtures("pushed")
def test_no_other_key_appears_than_with_rq_but_the_marker(redis: "Redis[Any]") -> None:
    keys = set(redis.keys(f"{RQ_KEY_PREFIX}*"))
    redis.delete(*keys)
    enqueued_by_rq(redis)

    assert {key.replace(b"outbox-42-g3", b"by-rq") for key in keys} - set(redis.keys(f"{RQ_KEY_PREFIX}*")) == {
        f"{RQ_KEY_PREFIX}:outbox:epoch".encode()
    }


@pytest.mark.usefixtures("pushed")
def test_rq_reads_the_job(redis: "Redis[Any]") -> None:
    queue = Queue("critical", connection=redis)

    job = queue.fetch_job("outbox-42-g3")

    assert job is not None
    assert (job.func_name, job.args, job.kwargs) == (ENTRY_POINT, (42,), {})
    assert (job.get_status(), job.origin, job.timeout) == (JobStatus.QUEUED, "critical", 660)
    assert job.created_at.tzinfo is not None
    assert queue.job_ids == ["outbox-42-g3"]
    assert Queue.all(connection=redis) == [queue]


def test_each_job_of_a_batch_carries_its_own_id(redis: "Redis[Any]", broker: Broker) -> None:
    ids = {"critical": [-7, 1, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**62], "default": list(range(1000, 10_000))}

    broker.push([Row(id_, 0, queue) for queue, of_queue in ids.items() for id_ in of_queue])

    for queue, of_queue in ids.items():
        jobs = Queue(queue, connection=redis).get_jobs()
        assert [(job.id, job.origin, job.data) for job in jobs] == [
            (f"outbox-{id_}-g0", queue, DefaultSerializer.dumps((ENTRY_POINT, None, (id_,), {}))) for id_ in of_queue
        ]


def test_a_job_that_is_pushed_again_is_as_new(redis: "Redis[Any]", broker: Broker, pushed: dict[bytes, bytes]) -> None:
    key = Job.key_for(job_id(ROW))
    redis.hset(key, mapping={"status": "started", "worker_name": "a worker", "meta": "of its former run"})

    broker.push([ROW])

    assert {**redis.hgetall(key), **dict.fromkeys(TIMES)} == {**pushed, **dict.fromkeys(TIMES)}


def test_nothing_but_the_id_travels(pushed: dict[bytes, bytes]) -> None:
    assert b"42" in zlib.decompress(pushed[b"data"]) or b"K*" in zlib.decompress(pushed[b"data"])
    assert len(zlib.decompress(pushed[b"data"])) < 80


def test_the_entry_point_exists() -> None:
    module, _, function = ENTRY_POINT.rpartition(".")

    assert callable(getattr(__import__(module, fromlist=[function]), function))
