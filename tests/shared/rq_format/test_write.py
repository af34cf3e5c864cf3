"""RQ restores the same job from what the relay writes as from what its own enqueue writes."""

import pickle
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job, JobStatus
from rq.serializers import DefaultSerializer

from outbox_relay.broker import Broker, open_broker
from shared.outbox.messages import ENTRY_POINT, JobRef
from shared.rq_format.ids import job_id
from shared.rq_format.write import FAILURE_TTL_SECONDS, RESULT_TTL_SECONDS
from tests.redis_keys import KEYS
from tests.shared.rq_format.former_job import FORMER_JOB

ROW = JobRef(id=42, generation=3, queue="critical")
RUN_LEASE_SECONDS = 60.0
TIMES = {b"created_at", b"enqueued_at"}


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    with closing(open_broker(redis_url, RQ_KEY_PREFIX, RUN_LEASE_SECONDS)) as opened:
        yield opened


@pytest.fixture
def pushed(redis: Redis, broker: Broker) -> dict[bytes, bytes]:
    broker.push([ROW])
    return hash_of(redis, Job.key_for(job_id(42, 3)))


def hash_of(redis: Redis, key: str | bytes) -> dict[bytes, bytes]:
    return cast("dict[bytes, bytes]", redis.hgetall(key))


def keys(redis: Redis) -> set[bytes]:
    return cast("set[bytes]", set(redis.keys(f"{RQ_KEY_PREFIX}*")))


def enqueued_by_rq(redis: Redis) -> dict[bytes, bytes]:
    job = Queue("critical", connection=redis).enqueue(
        ENTRY_POINT,
        42,
        job_id="by-rq",
        description="outbox message 42",
        job_timeout=660,
        result_ttl=RESULT_TTL_SECONDS,
        failure_ttl=FAILURE_TTL_SECONDS,
    )
    return hash_of(redis, job.key)


def test_the_hash_has_the_fields_that_rq_fills_in(redis: Redis, pushed: dict[bytes, bytes]) -> None:
    by_rq = {name: value for name, value in enqueued_by_rq(redis).items() if value}
    by_rq[b"data"] = zlib.decompress(by_rq[b"data"])

    assert without_times(pushed) == without_times(by_rq)


@pytest.mark.usefixtures("pushed")
def test_rq_restores_the_job_that_its_own_enqueue_would_have_stored(redis: Redis) -> None:
    enqueued_by_rq(redis)

    assert restored(redis, job_id(42, 3)) == restored(redis, "by-rq")


def test_rq_restores_a_job_that_a_former_relay_pushed(redis: Redis, broker: Broker) -> None:
    redis.hset(KEYS.job("former"), mapping=cast("dict[Any, Any]", FORMER_JOB))
    broker.push([JobRef(123_456, 0, "critical")])

    assert restored(redis, "former") == restored(redis, job_id(123_456, 0))


def without_times(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in fields.items() if name not in TIMES}


def restored(redis: Redis, id_: str) -> dict[str, Any]:
    """All attributes of the job that RQ restores, except its id and its times."""
    job = Job.fetch(id_, connection=redis)
    assert job.created_at is not None
    assert job.enqueued_at is not None
    own = {"_id", "created_at", "enqueued_at", "connection"}
    return {name: value for name, value in vars(job).items() if name not in own}


def test_the_times_look_like_rqs(redis: Redis, pushed: dict[bytes, bytes]) -> None:
    by_rq = enqueued_by_rq(redis)

    for name in TIMES:
        assert len(pushed[name]) == len(by_rq[name])
        assert (pushed[name][10:11], pushed[name][-1:]) == (by_rq[name][10:11], by_rq[name][-1:])


@pytest.mark.usefixtures("pushed")
def test_no_other_key_appears_than_with_rq_but_the_marker(redis: Redis) -> None:
    with_ours = keys(redis)
    redis.delete(*with_ours)
    enqueued_by_rq(redis)

    assert {key.replace(job_id(42, 3).encode(), b"by-rq") for key in with_ours} - keys(redis) == {
        KEYS.epoch_marker.encode()
    }


@pytest.mark.usefixtures("pushed")
def test_rq_reads_the_job(redis: Redis) -> None:
    queue = Queue("critical", connection=redis)

    job = queue.fetch_job(job_id(42, 3))

    assert job is not None
    assert (job.func_name, job.args, job.kwargs) == (ENTRY_POINT, (42,), {})
    assert (job.get_status(), job.origin, job.timeout) == (JobStatus.QUEUED, "critical", 660)
    assert job.created_at.tzinfo is not None
    assert queue.job_ids == [job_id(42, 3)]
    assert Queue.all(connection=redis) == [queue]


def test_each_job_of_a_batch_carries_its_own_id(redis: Redis, broker: Broker) -> None:
    ids = {
        "critical": [-7, 1, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**62],
        "default": list(range(9_500, 10_500)),
    }

    broker.push([JobRef(id_, 0, queue) for queue, of_queue in ids.items() for id_ in of_queue])

    for queue, of_queue in ids.items():
        jobs = Queue(queue, connection=redis).get_jobs()
        assert [(job.id, job.origin, job.data) for job in jobs] == [
            (job_id(id_, 0), queue, DefaultSerializer.dumps((ENTRY_POINT, None, (id_,), {}))) for id_ in of_queue
        ]


def test_a_job_that_is_pushed_again_keeps_nothing_of_its_last_run(
    redis: Redis, broker: Broker, pushed: dict[bytes, bytes]
) -> None:
    key = Job.key_for(job_id(42, 3))
    redis.hset(key, mapping={"status": "started", "worker_name": "a worker", "meta": "of its former run"})
    redis.expire(key, FAILURE_TTL_SECONDS)

    broker.push([ROW])

    assert without_times(hash_of(redis, key)) == without_times(pushed)
    assert redis.ttl(key) == -1


def test_the_call_holds_nothing_but_the_messages_id(pushed: dict[bytes, bytes]) -> None:
    assert pickle.loads(pushed[b"data"]) == (ENTRY_POINT, None, (42,), {})  # noqa: S301 - the broker wrote it


def test_the_entry_point_exists() -> None:
    module, _, function = ENTRY_POINT.rpartition(".")

    assert callable(getattr(__import__(module, fromlist=[function]), function))
