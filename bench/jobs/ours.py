"""Our two tasks with nothing to do: a module for OUTBOX_TASKS."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from consumer.task import Context, Done, Task
from shared.outbox import DEFAULT, Message


@dataclass(frozen=True, slots=True)
class DoneJob(Message):
    """A job whose effects, none, are written in the commit that acknowledges it."""

    task: ClassVar[str] = "bench:done"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str] = "local"

    number: int


@dataclass(frozen=True, slots=True)
class HandledJob(Message):
    """A job for a function that returns at once."""

    task: ClassVar[str] = "bench:handle"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str] = "local"

    number: int


def _prepare(_context: Context, messages: Mapping[int, DoneJob]) -> dict[int, Done]:
    return dict.fromkeys(messages, Done())


def _handle(_context: Context, _message: HandledJob) -> None:
    pass


TASKS = [Task(DoneJob, prepare=_prepare), Task(HandledJob, handle=_handle)]
