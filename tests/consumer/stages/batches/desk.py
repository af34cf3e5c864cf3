"""What an OutboxWorker's threads use, without the threads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import Connection

from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import Outcome
from consumer.model.results import Disposition
from consumer.stages.claim import Claimer, ClaimResult
from consumer.stages.database import Database
from consumer.stages.prepare import Preparer
from consumer.stages.record import ResultRecorder
from consumer.stages.retry_policy import RetryPolicy
from shared.database.connections import connect
from shared.outbox.messages import SendVerifyEmail, SendWelcomeEmail
from tests.consumer_settings import consumer_settings
from tests.rows import add_message

VERIFY, WELCOME = SendVerifyEmail.task, SendWelcomeEmail.task
LEASE = 30.0


class Desk:
    """What an OutboxWorker's threads use, without the threads."""

    def __init__(self, database_url: str) -> None:
        self.url = database_url
        self.database = Database(database_url)
        self.settings = settings = consumer_settings(database_url, run_lease_seconds=LEASE, concurrency=10)
        patience = RetryPolicy(sleep=lambda _seconds: None)
        self.claimer = Claimer(self.database, LEASE, patience)
        self.preparer = Preparer(self.database, settings, patience)
        self.recorder = ResultRecorder(self.database, 1.0)

    def claim(self, ids: Sequence[int]) -> ClaimResult:
        return self.claimer.claim(dict.fromkeys(ids))

    def hold(self, ids: Sequence[int]) -> list[ClaimedMessage]:
        return sorted(self.claim(ids).claimed, key=lambda held: ids.index(held.claim.id))

    def record(self, *ended: tuple[ClaimedMessage, Outcome]) -> dict[int, Disposition]:
        settled = self.recorder.record([AttemptResult(held, outcome) for held, outcome in ended])
        return {each.result.message.claim.id: each.disposition for each in settled}


def add_messages(connection: "Connection[Any]", count: int, task: str = VERIFY) -> list[int]:
    return [add_message(connection, task, status="published") for _ in range(count)]


def held_ids(claimed: ClaimResult) -> set[int]:
    return {held.claim.id for held in claimed.claimed}


@contextmanager
def locked(database_url: str, statement: str, *values: object) -> Iterator[None]:
    """Hold rows as a human does who leaves a session open."""
    with connect(database_url, "a human") as human:
        human.execute("BEGIN")
        human.execute(statement, values)
        yield
        human.execute("ROLLBACK")
