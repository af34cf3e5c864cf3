"""Our tasks with nothing to do: a module for OUTBOX_TASKS."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from consumer.task import Context, Done, Task
from shared.outbox import DEFAULT, Message

TIMES_FILE: Final = "BENCH_TIMES_FILE"
"""The variable that names the file in which LimitedJob records."""


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


@dataclass(frozen=True, slots=True)
class LimitedJob(Message):
    """A job for a destination of its own that records when it began."""

    task: ClassVar[str] = "bench:limited"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str] = "limited"

    number: int


def _prepare(_context: Context, messages: Mapping[int, DoneJob]) -> dict[int, Done]:
    return dict.fromkeys(messages, Done())


def _handle(_context: Context, _message: HandledJob) -> None:
    pass


def _record(_context: Context, _message: LimitedJob) -> None:
    began = time.monotonic()
    with Path(os.environ[TIMES_FILE]).open("a") as file:
        file.write(f"{began}\n")


TASKS = [Task(DoneJob, prepare=_prepare), Task(HandledJob, handle=_handle), Task(LimitedJob, handle=_record)]
