"""The tasks of a run beside the mails: effects in the database, a slow destination, and one that is always down."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from consumer.task import Context, Done, Task, Unavailable
from shared.outbox import DEFAULT, Message

KEY_HEADER: Final = "Idempotency-Key"
_ANSWER_SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 2.0
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class CountJob(Message):
    """Write one row for a job, exactly once."""

    task: ClassVar[str] = "chaos:count"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str] = "local"

    job: int


@dataclass(frozen=True, slots=True)
class CallSlow(Message):
    """Ask a service that answers after a long time, then count the job: as often as it takes, and once."""

    task: ClassVar[str] = "chaos:slow"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str] = "slow"

    job: int
    port: int


@dataclass(frozen=True, slots=True)
class CallDown(Message):
    """Ask a service that nobody answers for."""

    task: ClassVar[str] = "chaos:down"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str] = "down"

    job: int
    port: int


def count(context: Context, messages: Mapping[int, CountJob]) -> dict[int, Done]:
    """Write a row for each job. Nothing in the table keeps a second row of the same job out."""
    for message in messages.values():
        context.connection.execute("INSERT INTO chaos_effects (job) VALUES (%s)", [message.job])
    return dict.fromkeys(messages, Done())


def call_slow(context: Context, message: CallSlow) -> None:
    """Wait for the answer, and append the count of the job."""
    connection = http.client.HTTPConnection("127.0.0.1", message.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("POST", f"/{message.job}", headers={KEY_HEADER: context.idempotency_key})
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != _OK:
        raise RuntimeError(f"the answer was {status}")
    context.append(CountJob(message.job))


def call_down(_context: Context, message: CallDown) -> None:
    """Fail to connect."""
    connection = http.client.HTTPConnection("127.0.0.1", message.port, timeout=_CONNECT_SECONDS)
    try:
        connection.connect()
    except OSError as exc:
        raise Unavailable("no connection") from exc
    finally:
        connection.close()


TASKS = [Task(CountJob, prepare=count), Task(CallSlow, handle=call_slow), Task(CallDown, handle=call_down)]
