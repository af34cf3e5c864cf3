"""The claim, prepare and record steps of a consumer, without threads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import Connection

from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import Outcome
from consumer.model.results import Disposition
from consumer.stages.claim import Claimer, ClaimResult
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.prepare import Preparer
from consumer.stages.record import ResultRecorder
from shared.database.connections import LOCK_SECONDS, DbConnection, connect
from shared.outbox.messages import SendVerifyEmail, SendWelcomeEmail
from tests.rows import add_message
from tests.settings.consumer import consumer_settings

VERIFY, WELCOME = SendVerifyEmail.task, SendWelcomeEmail.task
LEASE = 30.0


class QuickDatabase(Database):
    """Waits a tenth of the usual time for a lock."""

    @contextmanager
    def transaction(self, *, lock_seconds: float = LOCK_SECONDS) -> Iterator[DbConnection]:
        with super().transaction(lock_seconds=lock_seconds / 10) as connection:
            yield connection


class Steps:
    """The claim, prepare and record steps of a consumer, without threads."""

    def __init__(self, database: Database, database_url: str) -> None:
        self.url = database_url
        self.database = database
        self.settings = settings = consumer_settings(database_url, run_lease_seconds=LEASE, concurrency=10)
        policy = RetryPolicy(sleep=lambda _seconds: None)
        self.claimer = Claimer(self.database, LEASE, policy)
        self.preparer = Preparer(self.database, settings, policy)
        self.recorder = ResultRecorder(self.database, 1.0)

    def claim(self, ids: Sequence[int]) -> ClaimResult:
        return self.claimer.claim(dict.fromkeys(ids))

    def claimed(self, ids: Sequence[int]) -> list[ClaimedMessage]:
        return sorted(self.claim(ids).claimed, key=lambda each: ids.index(each.claim.id))

    def record(self, *outcomes: tuple[ClaimedMessage, Outcome]) -> dict[int, Disposition]:
        recorded = self.recorder.record([AttemptResult(message, outcome) for message, outcome in outcomes])
        return {each.result.message.claim.id: each.disposition for each in recorded}


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
