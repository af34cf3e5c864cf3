"""The delay after a failed attempt: asynq's by default, n^4 + 15 + random(0..30) * (n + 1) seconds after n retries."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest

from consumer.task import Context, Task
from consumer.task.definition import default_delay_seconds
from shared.outbox import DEFAULT, Message

DRAWS = 500


@dataclass(frozen=True, slots=True)
class Nothing(Message):
    task: ClassVar[str] = "task:nothing"
    queue: ClassVar[str] = DEFAULT


def nothing(_context: Context, _message: Nothing) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("attempt", "shortest", "longest"),
    [(1, 15, 45), (2, 16, 76), (3, 31, 121), (4, 96, 216), (11, 10_015, 10_345)],
)
def test_each_wait_lies_within_the_bounds_of_the_formula(attempt: int, shortest: int, longest: int) -> None:
    waits = {default_delay_seconds(attempt) for _ in range(DRAWS)}

    assert all(shortest <= wait <= longest for wait in waits)


def test_messages_that_failed_together_are_retried_at_different_times() -> None:
    waits = {default_delay_seconds(1) for _ in range(DRAWS)}

    assert len(waits) > 20


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [([5, 60], [5, 60, 60]), (lambda attempt: attempt * 2, [2, 4, 6]), (lambda _attempt: 0, [0, 0, 0])],
)
def test_a_task_has_a_backoff_of_its_own(backoff: Callable[[int], float] | Sequence[float], waits: list[float]) -> None:
    task = Task(Nothing, handle=nothing, backoff=backoff)

    assert [task.delay_seconds(attempt) for attempt in (1, 2, 3)] == waits


@pytest.mark.parametrize(
    "backoff",
    [lambda _attempt: 1 / 0, lambda _attempt: float("nan"), lambda _attempt: -1, lambda _attempt: sys.exit()],
)
def test_a_backoff_that_fails_counts_as_none(backoff: Callable[[int], float]) -> None:
    assert 15 <= Task(Nothing, handle=nothing, backoff=backoff).delay_seconds(1) <= 45
