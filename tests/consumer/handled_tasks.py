"""Tasks for OUTBOX_TASKS whose messages say what becomes of them."""

import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import sleep
from typing import Any, ClassVar

from consumer.task import Context, Discarded, Done, RetryAfter, Task, Unavailable, Undeliverable
from shared.outbox import DEFAULT, Message

MODULE = __name__

EFFECTS = "CREATE TABLE effects (message text, attempt integer, key text)"


@dataclass(frozen=True, slots=True)
class Act(Message):
    """Do what the message says."""

    task: ClassVar[str] = "test:act"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str | None] = "local"

    do: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ActForLong(Act):
    """Do what the message says, and take time for it."""

    task: ClassVar[str] = "test:act_for_long"


@dataclass(frozen=True, slots=True)
class Write(Message):
    """Write an effect that happens exactly once."""

    task: ClassVar[str] = "test:write"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str | None] = "local"

    text: str


@dataclass(frozen=True, slots=True)
class WriteSoon(Write):
    """The same, within a second."""

    task: ClassVar[str] = "test:write_soon"


def act(context: Context, message: Act) -> Any:
    with context.connect() as connection:
        connection.execute(
            "INSERT INTO effects VALUES (%s, %s, %s)", [message.do, context.attempt, context.idempotency_key]
        )
    assert context.seconds_left > 0
    assert context.message_id > 0
    return ACTIONS[message.do](context, message)


def leak(context: Context, _message: Act) -> None:
    context.connect().execute("SELECT 1")


def append(context: Context, _message: Act) -> None:
    context.append(Write("appended"))


def append_and_fail(context: Context, _message: Act) -> None:
    context.append(Write("appended by a failed attempt"))
    raise KeyError("someone@example.com")


def append_what_is_refused(context: Context, message: Act) -> None:
    context.append(Write(message.do + "\0"))


def raising(exc: BaseException) -> Any:
    def act(_context: Context, _message: Act) -> None:
        raise exc

    return act


ACTIONS: Mapping[str, Any] = {
    "return": lambda _context, _message: None,
    "return a value": lambda _context, _message: 42,
    "return a coroutine": lambda _context, _message: never(),
    "return a dead letter": lambda _context, _message: Undeliverable("no\nuse"),
    "return discarded": lambda _context, _message: Discarded("not\0needed"),
    "return Done()": lambda _context, _message: Done(),
    "return an error": lambda _context, _message: KeyError(),
    "raise": raising(KeyError("someone@example.com")),
    "raise SystemExit": raising(SystemExit(3)),
    "raise KeyboardInterrupt": raising(KeyboardInterrupt()),
    "raise Undeliverable": raising(Undeliverable("no use")),
    "raise RetryAfter": raising(RetryAfter(3600)),
    "raise Unavailable": raising(Unavailable("closed for lunch")),
    "leak": leak,
    "append": append,
    "append and fail": append_and_fail,
    "append what is refused": append_what_is_refused,
    "sleep": lambda _context, message: sleep(message.seconds),
    "hang": lambda _context, _message: threading.Event().wait(),
    "exit": lambda _context, _message: os._exit(1),
    "sys.exit": lambda _context, _message: sys.exit(1),
}


async def never() -> None:
    raise AssertionError


def write(context: Context, messages: Mapping[int, Write]) -> dict[int, Any]:  # noqa: C901, PLR0912 - a list of ends
    """Write each text once, unless the text says something else."""
    returned: dict[int, Any] = {}
    for id_, message in messages.items():
        context.connection.execute("INSERT INTO effects VALUES (%s)", [message.text])
        returned[id_] = Done()
        match message.text:
            case "nothing":
                del returned[id_]
            case "a number":
                returned[id_] = 5
            case "raise":
                raise KeyError("someone@example.com")
            case "raise SystemExit":
                raise SystemExit(3)
            case "commit()":
                context.connection.commit()
            case "close()":
                context.connection.close()
            case "COMMIT" | "COMMIT; BEGIN" | "COMMIT AND CHAIN" | "ROLLBACK":
                context.connection.execute(message.text.encode())
            case "a savepoint":
                with context.connection.transaction():
                    context.connection.execute("SELECT 1")
            case "a thread":
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(context.connection.execute, "SELECT 1").result()
            case "a long statement":
                context.connection.execute("SELECT pg_sleep(60)")
            case "append":
                context.append(Write("appended"))
            case "Discarded":
                returned[id_] = Discarded("not needed")
            case "Undeliverable":
                returned[id_] = Undeliverable("no use")
            case "no mapping":
                return [Done()]  # type: ignore[return-value]
            case _:
                pass
    return returned


TASKS: list[Task[Any]] = [
    Task(Act, handle=act, timeout_seconds=1),
    Task(ActForLong, handle=act, timeout_seconds=60, backoff=[0]),
    Task(Write, prepare=write),
    Task(WriteSoon, prepare=write, timeout_seconds=1),
]
