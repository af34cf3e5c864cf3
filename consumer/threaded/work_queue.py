"""The queue between the Fetcher and the places of an OutboxWorker."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from consumer.model.message import MessagesToPrepare, Work
from consumer.model.outcomes import Accepted, Completed, DestinationUnavailable, Failed
from consumer.model.results import StepResult
from consumer.threaded.place_limits import SLOW_SECONDS, NoTurn, PlaceLimits, Turn

_SHORTEST_WAIT_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class TakenWork:
    """Work that was taken from the queue.

    Attributes:
        work: the work.
        turn: its turn; None if it may not begin, since its destination is slow.

    """

    work: Work
    turn: Turn | None

    @property
    def destination(self) -> str | None:
        """The destination whose slowness this work shows; None for work that shows nothing about any."""
        name = self.work.messages[0].claim.destination
        return name if _name(self.work) == name else None


@dataclass(frozen=True, slots=True)
class _Waiting:
    work: Work
    since: float


class WorkQueue:
    """Holds work until a place is free, or until too little of its lease is left.

    A slow destination does not get all places. What it cannot have is given to others that wait behind it.
    """

    def __init__(self, places: int = 1) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._limits = PlaceLimits(places)
        self._is_closed = False

    def put(self, work: Work) -> None:
        """Add work for any place."""
        with self._changed:
            self._waiting.append(_Waiting(work, monotonic()))
            self._changed.notify()

    def get(self) -> TakenWork | None:
        """Wait for work that may begin, or that has to be refused, and return it.

        None when the queue is closed and empty.
        """
        with self._changed:
            while (taken := self._take()) is None:
                if self._is_closed and not self._waiting:
                    return None
                self._changed.wait(self._seconds_to_refusal())
            return taken

    def end(self, turn: Turn, step: StepResult) -> bool:
        """End the turn of work that has this result, and return whether it took long."""
        contacts = (Accepted, Completed, Failed, DestinationUnavailable)
        results = [*step.results, *(each.result for each in step.recorded)]
        has_contacted = bool(step.work) or any(isinstance(each.outcome, contacts) for each in results)
        with self._changed:
            took_long = self._limits.end(turn, has_contacted=has_contacted)
            if self._waiting:
                self._changed.notify_all()
        return took_long

    def close(self) -> None:
        """Let the places end when they have carried out what waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def take_overdue(self) -> list[Work]:
        """Remove and return what waits for so long that no place can begin it any more."""
        return self._take_where(lambda work: monotonic() >= min(each.lease.begin_until for each in work.messages))

    def take_all(self) -> list[Work]:
        """Remove and return everything that waits."""
        return self._take_where(lambda _work: True)

    def _take_where(self, is_wanted: Callable[[Work], bool]) -> list[Work]:
        with self._changed:
            taken = [each for each in self._waiting if is_wanted(each.work)]
            for each in taken:
                self._waiting.remove(each)
            return [each.work for each in taken]

    def _take(self) -> TakenWork | None:
        for each in self._waiting:
            turn = self._limits.begin(
                _name(each.work),
                is_probe=_contacts(each.work) and each.work.messages[0].is_probe,
                waited_seconds=monotonic() - each.since,
            )
            if turn is not NoTurn.WAIT:
                self._waiting.remove(each)
                return TakenWork(each.work, None if isinstance(turn, NoTurn) else turn)
        return None

    def _seconds_to_refusal(self) -> float | None:
        """Return how long to wait until something that waits is refused; None if nothing does."""
        if not self._waiting:
            return None
        return max(_SHORTEST_WAIT_SECONDS, self._waiting[0].since + SLOW_SECONDS - monotonic())


def _contacts(work: Work) -> bool:
    return not isinstance(work, MessagesToPrepare)


def _name(work: Work) -> str:
    """Return under which name the places of this work are counted: those that contact a destination under its own.

    A mail that waits for a late answer says nothing about the others, and the preparation of a task contacts nobody.
    """
    claim = work.messages[0].claim
    if not _contacts(work):
        return f"prepare {claim.task}"
    return f"{claim.destination}, late answers" if claim.met_silence else claim.destination
