"""The claim, prepare and record steps of a consumer, without threads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import Connection

from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import Outcome
from consumer.model.results import Disposition
from consumer.stages.claim import Claimer, ClaimResult
from consumer.stages.database import Database, TaskConnection
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.handle import RunningTask
from consumer.stages.limiter import Limiter
from consumer.stages.place import Place
from consumer.stages.prepare import Preparer
from consumer.stages.record import ResultRecorder
from consumer.stages.send import Clients, Sender, open_mailer, open_webhook_client
from consumer.stages.sending.late_answers import LateAnswers
from consumer.task import Task
from consumer.task.registry import load_tasks
from shared.database.connections import LOCK_SECONDS, connect
from shared.outbox.messages import SendVerifyEmail, SendWelcomeEmail
from tests.rows import add_message
from tests.settings.consumer import consumer_settings

VERIFY, WELCOME = SendVerifyEmail.task, SendWelcomeEmail.task
LEASE = 30.0


class QuickDatabase(Database):
    """Waits a tenth of the usual time for a lock."""

    @contextmanager
    def transaction(self, *, lock_seconds: float = LOCK_SECONDS, also: bytes = b"") -> Iterator[TaskConnection]:
        with super().transaction(lock_seconds=lock_seconds / 10, also=also) as connection:
            yield connection


class Steps:
    """The claim, prepare and record steps of a consumer, without threads."""

    def __init__(self, database: Database, database_url: str) -> None:
        self.url = database_url
        self.database = database
        self.settings = settings = consumer_settings(database_url, run_lease_seconds=LEASE, concurrency=10)
        self._policy = policy = RetryPolicy(sleep=lambda _seconds: None)
        self.tasks = load_tasks(settings.task_modules)
        self.claimer = Claimer(self.database, LEASE, policy, self.tasks.known_tasks())
        self.preparer = Preparer(self.database, settings, self.tasks, policy)
        self.recorder = ResultRecorder(self.database, 1.0)

    def use(self, task: Task[Any]) -> None:
        """Prepare the messages of this task too."""
        self.tasks = self.tasks.with_tasks(task, is_own=True)
        self.preparer = Preparer(self.database, self.settings, self.tasks, self._policy)

    def place(self) -> Place:
        """Return a place for what was prepared."""
        late_answers = LateAnswers(self.settings.database_url, senders=lambda: 1)
        sender = Sender(
            self.settings,
            self.tasks,
            Clients(open_mailer(self.settings), open_webhook_client(self.settings)),
            late_answers,
        )
        limiter = Limiter(Database(self.settings.database_url))
        return Place(self.settings, self.tasks, RetryPolicy(), sender, begin, limiter)

    def claim(self, ids: Sequence[int]) -> ClaimResult:
        return self.claimer.claim(dict.fromkeys(ids))

    def claimed(self, ids: Sequence[int]) -> list[ClaimedMessage]:
        return sorted(self.claim(ids).claimed, key=lambda each: ids.index(each.claim.id))

    def record(self, *outcomes: tuple[ClaimedMessage, Outcome]) -> dict[int, Disposition]:
        recorded = self.recorder.record([AttemptResult(message, outcome) for message, outcome in outcomes])
        return {each.result.message.claim.id: each.disposition for each in recorded}


@contextmanager
def begin(messages: Sequence[ClaimedMessage], seconds: float) -> Iterator[RunningTask]:
    """Limit nothing."""
    raise AssertionError((messages, seconds))
    yield


def add_messages(connection: "Connection[Any]", count: int, task: str = VERIFY) -> list[int]:
    return [add_message(connection, task, status="published") for _ in range(count)]


def claimed_ids(claimed: ClaimResult) -> set[int]:
    return {each.claim.id for each in claimed.claimed}


@contextmanager
def locked(database_url: str, statement: str, *values: object) -> Iterator[None]:
    """Lock rows, as a person does who leaves a session open."""
    with connect(database_url, "a human") as human:
        human.execute("BEGIN")
        human.execute(statement, values)
        yield
        human.execute("ROLLBACK")
