"""Where a relay is among the pending messages: the sources that it knows, and the ranges that it has not searched.

A source is a queue and a destination. The index keeps the entries of published rows until a vacuum, and a vacuum keeps
them while any session holds an old snapshot. So each known source has a cursor, and sources that are not known yet are
searched between the known ones, where no entries of those are read.

With more sources than one pass looks at, the ranges are searched over several passes, and sources that are found there
do not become known: each has its turn in each round.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from outbox_relay.loop.publishing.allocation import Candidate
from shared.outbox.discovery import (
    AFTER_ALL_NAMES,
    CURSOR_AT_START,
    NO_DESTINATION,
    Cursor,
    Discovered,
    Range,
    Source,
)
from shared.outbox.messages import MAIL, QUEUES

KNOWN_SOURCES: Final = 64
"""How many sources of a queue are known at most."""

_ALWAYS_KNOWN: Final = (NO_DESTINATION, MAIL)


class Positions:
    """The cursors of known sources, and the ranges that the current round has still to search."""

    def __init__(self, known_sources: int = KNOWN_SOURCES) -> None:
        self._known_sources = known_sources
        self._cursors = {Source(queue, name): CURSOR_AT_START for queue in QUEUES for name in _ALWAYS_KNOWN}
        self._used: dict[Source, int] = {}
        """The pass in which messages were last taken from a source, for the known ones."""
        self._pass = 0
        self._ranges: list[Range] = []
        self._round_left_some = False

    def cursors(self, *, at_start: bool) -> Mapping[Source, Cursor]:
        """Return the cursors of the known sources, or the same sources with the cursor at the start."""
        return dict.fromkeys(self._cursors, CURSOR_AT_START) if at_start else dict(self._cursors)

    def ranges(self) -> list[Range]:
        """Return the ranges that have not been searched in this round. A new round begins where none is left."""
        if not self._ranges:
            self._round_left_some = False
            for queue in QUEUES:
                names = sorted(source.destination for source in self._cursors if source.queue == queue)
                self._ranges += map(Range, [queue] * len(names), names, [*names[1:], AFTER_ALL_NAMES])
        return list(self._ranges)

    @property
    def is_round_over(self) -> bool:
        """Whether every range was searched and nothing that is due was left there."""
        return not self._ranges and not self._round_left_some

    def last_used(self, source: Source) -> int:
        """Return the number of the pass in which messages were last taken from a source; 0 for one without memory."""
        return self._used.get(source, 0)

    def advance(
        self,
        found: Discovered,
        candidates: Sequence[Candidate],
        *,
        searched: Sequence[Range],
        limit: int,
    ) -> None:
        """Move behind what a pass has read and taken.

        Args:
            found: what was pending.
            candidates: the sources from which messages were taken, or might have been.
            searched: the ranges in which sources were searched.
            limit: how many sources were searched at most.

        """
        self._pass += 1
        by_source = {each.source: each for each in candidates}
        # Nothing was taken of these, for want of places or room, or because the destination is open or paused.
        unread = {head.source for head in found.heads if head.is_blocked}
        unread |= {each.source for each in candidates if not each.jobs and each.may_have_more}
        new = [head.source for head in found.heads if head.range_number is not None]
        is_complete = len(new) < limit
        if searched:
            left = {each.source for each in candidates if not each.jobs and each.is_waiting}
            self._ranges = [] if is_complete else self._rest_of(searched, found, left)
        for source in [*self._cursors, *(new if is_complete else ())]:
            candidate = by_source.get(source)
            if candidate is not None and candidate.jobs:
                self._used[source] = self._pass
            if source in unread:
                self._cursors.setdefault(source, CURSOR_AT_START)
            elif candidate is not None and candidate.may_have_more:
                self._cursors[source] = candidate.cursor
            else:
                self._cursors[source] = found.late
        if not is_complete:
            self._round_left_some |= any(by_source[each].may_have_more for each in new if each in by_source)
        self._forget()

    @staticmethod
    def _rest_of(searched: Sequence[Range], found: Discovered, left: set[Source]) -> list[Range]:
        """Return what is left of the ranges: in each, the names behind the last one before the first that was left."""
        last: dict[int, str] = {}
        blocked: set[int] = set()
        for head in sorted(
            (head for head in found.heads if head.range_number is not None), key=lambda head: head.source
        ):
            assert head.range_number is not None  # noqa: S101 - for the type checker
            if head.source in left:
                blocked.add(head.range_number)
            if head.range_number not in blocked:
                last[head.range_number] = head.source.destination
        return [
            each._replace(after=last[number]) if number in last else each
            for number, each in enumerate(searched)
            if number in last or number in blocked
        ]

    def _forget(self) -> None:
        """Forget the sources from which nothing was taken for the longest time, where too many are known."""
        for queue in QUEUES:
            known = [
                source for source in self._cursors if source.queue == queue and source.destination not in _ALWAYS_KNOWN
            ]
            for source in sorted(known, key=self.last_used)[: max(0, len(known) - self._known_sources)]:
                del self._cursors[source]
                self._used.pop(source, None)
