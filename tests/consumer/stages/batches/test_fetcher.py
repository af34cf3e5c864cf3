"""The Fetcher thread, with queues instead of the other threads."""

import os
import signal
import threading
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest.mock import Mock

import pytest
from psycopg import Connection
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError
from redis.retry import Retry
from rq import Queue

from consumer.threaded.fetcher import Fetcher
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.state import WorkerState
from consumer.threaded.timings import WorkerTimings
from consumer.threaded.work_queue import WorkQueue
from embedded.servers.redis import RedisServer
from redis_client.opening import open_redis
from shared.outbox.messages import ENTRY_POINT
from shared.rq_format.ids import job_id
from shared.rq_format.read import PoppedJob
from tests.consumer.stages.batches.steps import Steps, add_messages
from tests.failover.demotion import demotable_redis
from tests.redis_keys import KEYS
from tests.waiting import wait_until


@pytest.mark.parametrize(("defect", "has_finished"), [(None, True), (ZeroDivisionError, False)])
def test_a_fetcher_that_ends_by_a_bug_has_not_finished(
    steps: Steps,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    defect: type[Exception] | None,
    has_finished: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(WorkerBroker, "pop", Mock(side_effect=defect, return_value=[]))
    with closing(Redis.from_url(redis_url)) as redis:
        fetcher = Fetcher(
            WorkerBroker(redis, KEYS, ["q"], "one"),
            WorkerState(capacity=1, max_jobs=None),
            steps.database,
            steps.claimer,
            steps.preparer,
            burst=True,
            timings=WorkerTimings(),
            work=WorkQueue(),
            results=SimpleQueue(),
        )
        fetcher.start()
        fetcher.join(10)

    assert (fetcher.is_alive(), fetcher.has_finished) == (False, has_finished)


def test_a_job_that_has_to_be_read_is_kept_while_redis_is_unavailable(
    steps: Steps, connection: "Connection[Any]", own_redis: RedisServer
) -> None:
    [id_] = add_messages(connection, 1)

    class FreezesAfterThePop(WorkerBroker):
        def pop(self, most: int, *, last_queue_first: bool = False) -> list[PoppedJob]:
            popped = super().pop(most, last_queue_first=last_queue_first)
            os.kill(own_redis.pid, signal.SIGSTOP)
            return popped

    state = WorkerState(capacity=1, max_jobs=1)
    work = WorkQueue()
    with closing(Redis.from_url(own_redis.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))) as redis:
        queue = Queue("q", connection=redis)
        queue.enqueue(ENTRY_POINT, id_)
        broker = FreezesAfterThePop(redis, KEYS, ["q"], "one")
        fetcher = Fetcher(
            broker,
            state,
            steps.database,
            steps.claimer,
            steps.preparer,
            burst=False,
            timings=WorkerTimings(),
            work=work,
            results=SimpleQueue(),
        )
        fetcher.start()
        wait_until(lambda: state.redis_unavailable or not fetcher.is_alive(), 10, "the outage to be noticed")
        os.kill(own_redis.pid, signal.SIGCONT)
        fetcher.join(10)

    work.close()
    prepared = work.get()
    assert prepared is not None
    assert [each.claim.id for each in prepared.work.messages] == [id_]


def test_the_worker_leaves_a_replica_that_refuses_a_deletion(tmp_path: Path) -> None:
    with demotable_redis(tmp_path) as redis, closing(open_redis(redis.url)) as client:
        broker = WorkerBroker(client, KEYS, ["critical"], "one")
        job = PoppedJob(KEYS.queue("critical"), job_id(1, 0).encode())
        broker.finish([job], [])
        redis.demote()

        with pytest.raises(ReadOnlyError):
            broker.finish([job], [])
        broker.finish([job], [])
