"""PostgreSQL and Redis, as a walk leaves and finds them."""

from collections.abc import Sequence

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import Broker
from shared.database.connections import connect
from shared.outbox.messages import QUEUES, JobRef
from shared.rq_format.ids import job_id
from tests.model.messages.state import Job
from tests.redis_keys import KEYS, as_text
from tests.rows import add_message
from tests.sql_against_model.moment import Connection


class Servers:
    """PostgreSQL and Redis, and the session in which the operator gives orders and time passes."""

    def __init__(self, database_url: str, redis: Redis, broker: Broker) -> None:
        self.database_url = database_url
        self.redis = redis
        self.broker = broker
        self.own = self.connect()
        self.ids: list[int] = []
        self.in_doubt: dict[int, Connection] = {}  # by message: a claim whose COMMIT is not decided

    def connect(self) -> Connection:
        connection = connect(self.database_url, "test")
        connection.execute("SET lock_timeout = '3 s'")  # none of the model's steps waits
        return connection

    def empty(self, messages: int, max_retries: int) -> None:
        self.wipe()
        self.own.execute("DELETE FROM outbox")
        self.own.execute("DELETE FROM outbox_finished")
        self.ids = [add_message(self.own, queue=QUEUES[each], max_retries=max_retries) for each in range(messages)]

    def wipe(self) -> None:
        """Empty Redis, which may be somebody's own: only of our keys."""
        for key in self.redis.scan_iter(match=f"{RQ_KEY_PREFIX}:*", count=1000):
            self.redis.unlink(key)

    def row(self, job: Job) -> JobRef:
        return JobRef(self.ids[job.message], job.generation, QUEUES[job.message])

    def rows(self, jobs: Sequence[Job]) -> list[JobRef]:
        return [self.row(job) for job in jobs]

    def job_id(self, job: Job) -> str:
        return job_id(self.ids[job.message], job.generation)

    def queue_key(self, queue: str) -> str:
        return KEYS.queue(queue)

    def listed(self) -> list[list[str]]:
        """The ids in the lists, queue by queue."""
        return [[as_text(job) for job in self.redis.lrange(self.queue_key(queue), 0, -1)] for queue in QUEUES]
