"""The intake when Redis goes away between a pop and the look at what was popped."""

import time
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
import structlog
from rq import Queue

from consumer.model.message import AttemptResult, PreparedMail
from consumer.stages.claim import Claimer
from consumer.stages.database import Database
from consumer.stages.prepare import Preparer
from consumer.stages.retry_policy import RetryPolicy
from consumer.threaded.fetcher import Fetcher
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.state import WorkerState
from consumer.threaded.timings import WorkerTimings
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
    """Loses its Redis after the first pop, before it asks what was popped."""

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


def test_what_was_popped_before_redis_went_away_is_worked_on_or_named(world: World, own_redis: RedisServer) -> None:
    ours = add_message(world.connection)
    with own_redis.client() as redis:
        queue = Queue("default", connection=redis)
        redis.rpush(KEYS.queue(DEFAULT), job_id(ours, 0))
        foreign = [queue.enqueue("a.function").id for _ in range(2)]
    control = WorkerState(capacity=10, max_jobs=None)
    database = Database(world.settings.database_url)
    patience = RetryPolicy(time.sleep, lambda: False)
    ready: SimpleQueue[PreparedMail | None] = SimpleQueue()
    ended: SimpleQueue[AttemptResult | None] = SimpleQueue()
    intake = Fetcher(
        BrokerThatLosesRedis(own_redis),
        control,
        database,
        Claimer(database, 30, patience),
        Preparer(database, world.settings, patience),
        burst=False,
        timings=WorkerTimings(),
        prepared_mails=ready,
        results=ended,
    )

    with structlog.testing.capture_logs() as logs:
        intake.start()
        wait_until(lambda: control.redis_unavailable, 10, "Redis to be missed")
        held = ready.get(timeout=10)
        control.stop()
        intake.join(10)

    assert held is not None
    assert held.message.claim.id == ours
    assert [line["job"] for line in logs if line["event"] == "job.dropped"] == [repr(id_.encode()) for id_ in foreign]
