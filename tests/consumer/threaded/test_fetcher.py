"""The Fetcher when Redis becomes unavailable after a pop, before the popped jobs are read."""

from collections.abc import Iterator
from queue import SimpleQueue

import pytest
import structlog
from rq import Queue

from consumer.stages.claim import Claimer
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.prepare import Preparer
from consumer.threaded.fetcher import Fetcher
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.state import WorkerState
from consumer.threaded.timings import WorkerTimings
from consumer.threaded.work_queue import WorkQueue
from embedded.mail.catcher import MailCatcher
from embedded.servers.redis import RedisServer
from redis_client.retrying import no_retry
from shared.outbox.messages import DEFAULT, QUEUES
from shared.rq_format.ids import job_id
from shared.rq_format.read import PoppedJob
from tests.consumer.stages.processing.world import World, world_of
from tests.redis_keys import KEYS
from tests.rows import add_message
from tests.waiting import wait_until


class BrokerThatLosesRedis(WorkerBroker):
    """Kills its Redis after the first pop, before the popped jobs are read."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server.client(), KEYS, QUEUES, "test")
        self._client.set_retry(no_retry())
        self._server = server

    def message_id(self, job: PoppedJob) -> int | None:
        self._server.kill()
        return super().message_id(job)


@pytest.fixture
def world(database_url: str, mailbox: MailCatcher) -> Iterator[World]:
    with world_of(database_url, mailbox.smtp_port) as made:
        yield made


def test_jobs_popped_before_an_outage_of_redis_are_processed_or_logged(world: World, own_redis: RedisServer) -> None:
    ours = add_message(world.connection)
    with own_redis.client() as redis:
        queue = Queue("default", connection=redis)
        redis.rpush(KEYS.queue(DEFAULT), job_id(ours, 0))
        foreign = [queue.enqueue("a.function").id for _ in range(2)]
    state = WorkerState(capacity=10, max_jobs=None)
    database = Database(world.settings.database_url)
    policy = RetryPolicy()
    work = WorkQueue()
    fetcher = Fetcher(
        BrokerThatLosesRedis(own_redis),
        state,
        database,
        Claimer(database, 30, policy),
        Preparer(database, world.settings, world.tasks, policy),
        burst=False,
        timings=WorkerTimings(),
        work=work,
        results=SimpleQueue(),
    )

    with structlog.testing.capture_logs() as logs:
        fetcher.start()
        wait_until(lambda: state.redis_unavailable, 10, "Redis to be missed")
        prepared = work.get()
        state.stop()
        fetcher.join(10)

    assert prepared is not None
    assert [each.claim.id for each in prepared.work.messages] == [ours]
    assert [line["job"] for line in logs if line["event"] == "job.dropped"] == [repr(id_.encode()) for id_ in foreign]
