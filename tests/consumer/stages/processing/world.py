"""A database with one user, consumers that work on it, and helpers to read the results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from psycopg.rows import dict_row

from consumer.model.results import Disposition
from consumer.stages.database import Database
from consumer.stages.processor import Processor
from consumer.task import Context, Mail, Task
from consumer.task.registry import load_tasks
from shared.database.connections import connect
from shared.outbox.messages import Message, SendVerifyEmail, SendWelcomeEmail
from tests.rows import add_user, message
from tests.settings.consumer import consumer_settings

KEY = "the signing key of these tests: 32 characters"
VERIFY, WELCOME = SendVerifyEmail.task, SendWelcomeEmail.task

Row = dict[str, Any]
Logs = list[Any]


@dataclass(frozen=True, slots=True)
class MailTest(Message):
    task: ClassVar[str] = "task:test"
    queue: ClassVar[str] = "default"
    destination: ClassVar[str | None] = "mail"

    username: str


class World:
    """A database with one user, and consumers that work on it."""

    def __init__(self, database_url: str, smtp_port: int) -> None:
        self.url = database_url
        self.settings = consumer_settings(database_url, smtp_port, secret_keys=(KEY,))
        self.tasks = load_tasks(self.settings.task_modules)
        self.connection = connect(database_url, "test")
        self._consumers: list[Processor] = []

    def consumer(
        self,
        *,
        database: Database | None = None,
        deadline_passed: Callable[[], bool] = lambda: False,
        **settings: Any,
    ) -> Processor:
        """Return a new consumer, with some settings changed."""
        chosen = replace(self.settings, **settings)
        consumer = Processor(chosen, self.tasks, database=database, deadline_passed=deadline_passed)
        self._consumers.append(consumer)
        return consumer

    def process(self, message_id: int, **settings: Any) -> Disposition:
        """Process the message with a new consumer."""
        return self.consumer(**settings).process(message_id)

    def make_due(self, message_id: int) -> None:
        """End the delay of the message."""
        self.connection.execute("UPDATE outbox SET due_at = now() WHERE id = %s", [message_id])

    def take_back(self, message_id: int) -> None:
        """Take the claim back as a relay does when the lease is over."""
        self.connection.execute(
            "UPDATE outbox SET status = 'pending', generation = generation + 1, due_at = now(),"
            " claim_token = NULL, lease_until = NULL WHERE id = %s AND status = 'running'",
            [message_id],
        )

    def message(self, message_id: int) -> Row:
        return message(self.connection, message_id)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, values).fetchall()

    def breaker(self) -> Row:
        """Return the row of `mail`: NULL in each column if there is none."""
        [row] = self.rows(
            "SELECT d.*, probe_at <= clock_timestamp() AS is_probe_due"
            " FROM (VALUES ('mail')) AS known (name) LEFT JOIN outbox_destinations AS d USING (name)"
        )
        return row

    def open_breaker(self, probe_id: int | None = None) -> None:
        """Open the breaker as after one outage, with or without a probe in progress."""
        self.connection.execute(
            """
            INSERT INTO outbox_destinations (name, opened_at, outages, probe_at, probe_id)
            VALUES ('mail', now(), 1, '2100-01-01', %s)
                ON CONFLICT (name) DO UPDATE
               SET opened_at = now(), outages = 1, probe_at = excluded.probe_at, probe_id = excluded.probe_id
            """,
            [probe_id],
        )

    def records(self) -> list[Row]:
        return self.rows("SELECT * FROM verify_emails ORDER BY id")

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close()
        self.connection.close()


@contextmanager
def world_of(database_url: str, smtp_port: int) -> Iterator[World]:
    world = World(database_url, smtp_port)
    try:
        add_user(world.connection)
        yield world
    finally:
        world.close()


@contextmanager
def running(job: Callable[[], Disposition]) -> Iterator["Future[Disposition]"]:
    """Run the job in another thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(job)


def register(world: World, prepare: Callable[[Context, MailTest], Mail]) -> str:
    """Register a task with this `prepare` and return its name."""

    def prepare_all(context: Context, messages: Mapping[int, MailTest]) -> dict[int, Mail]:
        return {message_id: prepare(context, content) for message_id, content in messages.items()}

    world.tasks = world.tasks.with_tasks(Task(MailTest, prepare=prepare_all), is_own=True)
    return MailTest.task


def raise_error(_context: Context, _message: MailTest) -> Mail:
    raise KeyError("alice@example.com")


def last_failure(row: Row) -> tuple[int, str, bool]:
    entry = row["failures"][-1]
    assert datetime.fromisoformat(entry["at"]) <= datetime.now(UTC) + timedelta(minutes=1)
    return entry["attempt"], entry["reason"], entry["maybe_accepted"]


def waits_for_a_lock(world: World) -> bool:
    waiting = world.rows(
        "SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'outbox-consumer'"
    )
    return bool(waiting)
