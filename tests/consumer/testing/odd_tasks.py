"""Tasks whose work the payload chooses, right and wrong, for the tests of what runs tasks in tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from consumer.task import Context, Discarded, Done, Mail, RetryAfter, Task, Undeliverable
from shared.outbox import DEFAULT, Message


@dataclass(frozen=True, slots=True)
class Prepared(Message):
    task: ClassVar[str] = "odd:prepared"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str | None] = "local"

    work: str


@dataclass(frozen=True, slots=True)
class Handled(Message):
    task: ClassVar[str] = "odd:handled"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str | None] = "local"

    work: str


@dataclass(frozen=True, slots=True)
class Unknown(Message):
    task: ClassVar[str] = "odd:unknown"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str | None] = "local"


def prepare(context: Context, messages: Mapping[int, Prepared]) -> Any:
    [(id_, message)] = messages.items()
    match message.work:
        case "commit":
            context.connection.commit()
        case "COMMIT":
            context.connection.execute("COMMIT; BEGIN")
        case "append":
            context.append(Handled("nothing"))
        case "savepoint":
            with context.connection.transaction():
                context.connection.execute("SELECT 1")
        case "discard":
            return {id_: Discarded("nobody needs it")}
        case "forget":
            return {}
        case "return nothing":
            return None
        case "return a text":
            return {id_: "done"}
        case "mail":
            return {id_: Mail("ada@example.com", "Ada", "No template", "missing", {})}
    return {id_: Done()}


def handle(context: Context, message: Handled) -> Any:  # noqa: C901 - a list of ends
    match message.work:
        case "leak":
            context.connect().execute("SELECT 1")
        case "read":
            with context.connect() as connection:
                return connection.execute("SELECT 1").fetchone()
        case "return a mail":
            return Mail("ada@example.com", "Ada", "A mail", "missing", {})
        case "return Done()":
            return Done()
        case "yield":
            return (each for each in "ab")
        case "append":
            context.append(Handled("append once more"), delay_seconds=60)
            return (context.attempt, context.message_id, len(context.idempotency_key), 50 < context.seconds_left <= 60)
        case "append too much":
            context.append(Handled("x" * 2_000_000))
        case "retry":
            raise RetryAfter(300, "later")
        case "refuse":
            raise Undeliverable("never")
        case "fail":
            raise KeyError(message.work)
    return None


TASKS = [Task(Prepared, prepare=prepare), Task(Handled, handle=handle)]
