"""The servers that an OutboxWorker needs, the workers, and their logs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rq import Queue, Worker

from embedded.mail.catcher import MailCatcher
from embedded.programs.program import Program
from redis_client.opening import open_redis
from shared.database.connections import connect
from shared.outbox.messages import SendVerifyEmail
from shared.settings.sentinel_url import CONNECTION_CLASS
from tests.consumer.threaded import fast_workers
from tests.programs.preloading import Preloaded
from tests.programs.processes import OUTBOX_WORKER, events, publish, started, worker_module, worker_settings
from tests.rows import add_message, add_user, ids_by_message_id, message
from tests.waiting import wait_until

WAIT = 20.0


class Service:
    """A database with a user, a Redis, a mail server, and workers."""

    def __init__(
        self, database_url: str, redis_url: str, mailbox: MailCatcher, origin: Preloaded, folder: Path
    ) -> None:
        self.redis_url = redis_url
        self.mailbox = mailbox
        self.settings = {
            **worker_settings(database_url, redis_url, mailbox.smtp_url),
            "RQ_WORKER_CLASS": OUTBOX_WORKER,
            "RQ_CONNECTION_CLASS": CONNECTION_CLASS,
        }
        self.connection = connect(database_url, "test")
        self.redis = open_redis(redis_url)
        self._origin = origin
        self._folder = folder
        self._workers = ExitStack()
        self._count = 0
        add_user(self.connection)

    def start(self, *options: str, wait: bool = True, **settings: str) -> Program:
        """Start a worker and wait until it takes jobs."""
        worker = self._start(worker_module(*options), settings)
        if wait:
            wait_until(lambda: said(worker, "worker.started"), WAIT, "the worker to start")
        return worker

    def start_fast(self, worker: str, *options: str, **settings: str) -> Program:
        """Start one of fast_workers, without waiting for it."""
        return self.start(*options, wait=False, RQ_WORKER_CLASS=f"{fast_workers.MODULE}.{worker}", **settings)

    def publish(self, count: int = 1, task: str = SendVerifyEmail.task, queue: str = "critical") -> list[int]:
        """Append messages and publish them."""
        ids = [add_message(self.connection, task, queue=queue) for _ in range(count)]
        assert publish(self.connection, self.redis_url) == count
        return ids

    def _start(self, argv: Sequence[str | Path], settings: Mapping[str, str]) -> Program:
        self._count += 1
        log_file = self._folder / f"worker-{self._count}.log"
        return self._workers.enter_context(started(argv, {**self.settings, **settings}, log_file, self._origin))

    def sent(self) -> list[int]:
        """Return the messages whose mails have arrived, in order."""
        ids = ids_by_message_id(self.connection, "example.org")
        return [ids[mail.message["Message-ID"]] for mail in self.mailbox.mails()]

    def status(self, message_id: int) -> str:
        return str(message(self.connection, message_id)["status"])

    def wait_for_done(self, ids: list[int]) -> None:
        wait_until(lambda: {self.status(id_) for id_ in ids} == {"done"}, WAIT, "the messages to be done")

    def listed(self) -> list[str]:
        """Return the jobs in the queues."""
        return [job for name in ("critical", "default") for job in Queue(name, connection=self.redis).job_ids]

    def shown_workers(self) -> list[str]:
        """Return the names of the workers that RQ shows."""
        return [worker.name for worker in Worker.all(connection=self.redis)]

    def close(self) -> None:
        self._workers.close()
        self.redis.close()
        self.connection.close()


@contextmanager
def service_of(
    database_url: str, redis_url: str, mailbox: MailCatcher, origin: Preloaded, folder: Path
) -> Iterator[Service]:
    service = Service(database_url, redis_url, mailbox, origin, folder)
    try:
        yield service
    finally:
        service.close()


def said(worker: Program, event: str) -> list[dict[str, Any]]:
    return [line for line in events(worker) if line["event"] == event]
