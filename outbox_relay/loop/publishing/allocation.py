"""Shares a batch out among the sources that have due messages."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.outbox.discovery import Cursor, Source
from shared.outbox.messages import JobRef
from shared.outbox.publishing import Taken, Wanted


@dataclass(slots=True)
class Candidate:
    """A source with due messages, and what was taken of it so far.

    Attributes:
        source: the source.
        cursor: behind which messages are taken next.
        due: when its oldest message was due, in seconds since the epoch.
        room: how many messages its window has room for; None if it has no window.
        jobs: what was taken.
        may_have_more: whether more due messages may follow.

    """

    source: Source
    cursor: Cursor
    due: float
    room: int | None
    jobs: list[JobRef] = field(default_factory=list)
    may_have_more: bool = True

    @property
    def is_waiting(self) -> bool:
        """Whether more may be taken."""
        return self.may_have_more and (self.room is None or len(self.jobs) < self.room)

    def add(self, part: Taken | None) -> None:
        """Add what was taken for one Wanted; None if nothing was."""
        if part is None:
            self.may_have_more = False
        else:
            self.jobs += part.jobs
            self.cursor = part.cursor
            self.may_have_more = part.is_full


def allot(candidates: Sequence[Candidate], places: int) -> list[Wanted]:
    """Return what to take from each, in equal parts of the places; the first ones get what cannot be divided."""
    wanted: list[Wanted] = []
    for number, each in enumerate(candidates):
        part = -(-places // (len(candidates) - number))
        if each.room is not None:
            part = min(part, each.room - len(each.jobs))
        if part > 0:
            wanted.append(Wanted(each.source, each.cursor, part))
            places -= part
    return wanted
