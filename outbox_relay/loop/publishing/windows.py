"""How many messages of a limited or slow destination may be published, so that few of them stand before others.

A window bounds how many are published at a time, a pace how many in a second: workers release at once what they may not
send yet, and without a pace the next ones would follow at full speed.

A relay counts the messages that it published itself. An index of published messages by destination, which would count
those of other relays too, would make publishing a fifth more expensive for all messages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.discovery import Head, Source
from shared.outbox.publishing import statuses_among

SMALLEST_WINDOW: Final = 10
WINDOW_SECONDS: Final = 5.0
"""A window holds what the destination finishes in so many seconds."""

FULL_WINDOW_SECONDS: Final = 0.25
"""When the next messages of a destination with a window may be published: as often a relay counts what is published."""

_MEASURE_SECONDS: Final = 1.0
_SLOWEST_PACE: Final = 2.0
_LARGEST_WINDOW_BATCHES: Final = 10
_FORGOTTEN_SECONDS: Final = 600.0


@dataclass(slots=True)
class _Window:
    """What is known of one source. Times are those of the clock of Windows.

    Attributes:
        size: how many messages may be published at a time.
        pace: how many may be published in a second.
        tokens: how many may be published now.
        published: how many are, as of counted_at.
        rate: how many messages are finished in a second.
        finished: how many were since measured_at.
        unfinished: the messages that this relay published and that were not finished at counted_at.

    """

    refilled_at: float
    measured_at: float
    used_at: float
    counted_at: float = float("-inf")
    size: int = SMALLEST_WINDOW
    pace: float = _SLOWEST_PACE
    tokens: float = float("inf")
    published: int = 0
    rate: float = 0.0
    finished: int = 0
    unfinished: set[int] = field(default_factory=set)

    @property
    def room(self) -> int:
        """How many messages may be published now."""
        return max(0, min(self.size - self.published, int(self.tokens)))


class Windows:
    """The windows of this relay's sources."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._windows: dict[Source, _Window] = {}

    def rooms(self, connection: DbConnection, heads: Sequence[Head], batch_size: int) -> dict[Source, int]:
        """Return how many messages may be published, for each of these sources that has a window."""
        now = self._clock()
        windows = {
            head.source: self._windows.setdefault(head.source, _Window(now, now, now))
            for head in heads
            if head.has_window
        }
        if not windows:
            return {}
        self._count(connection, list(windows.values()), now)
        for head in heads:
            if window := windows.get(head.source):
                window.used_at = now
                _resize(window, head)
                window.tokens = min(window.size, window.tokens + window.pace * (now - window.refilled_at))
                window.refilled_at = now
        for source in [source for source, each in self._windows.items() if now - each.used_at > _FORGOTTEN_SECONDS]:
            del self._windows[source]
        # A window of many batches is none.
        return {
            source: window.room
            for source, window in windows.items()
            if window.size <= _LARGEST_WINDOW_BATCHES * batch_size
        }

    def published(self, source: Source, ids: Sequence[int]) -> None:
        """Record that messages were published."""
        if window := self._windows.get(source):
            window.tokens -= len(ids)
            window.published += len(ids)
            window.unfinished.update(ids)

    @staticmethod
    def _count(connection: DbConnection, windows: Sequence[_Window], now: float) -> None:
        """Count what is published and what was finished: what is released comes back, and is no progress."""
        due = [each for each in windows if now - each.counted_at >= FULL_WINDOW_SECONDS]
        ids = set().union(*(each.unfinished for each in due))
        statuses = statuses_among(connection, ids) if ids else {}
        for each in due:
            each.counted_at = now
            left = {id_ for id_ in each.unfinished if statuses.get(id_, "dead") != "dead"}
            each.finished += len(each.unfinished) - len(left)
            each.unfinished = left
            each.published = sum(statuses[id_] == "published" for id_ in left)
            elapsed = now - each.measured_at
            if elapsed >= _MEASURE_SECONDS:
                each.rate = (each.rate + each.finished / elapsed) / 2
                each.measured_at, each.finished = now, 0


def _resize(window: _Window, head: Head) -> None:
    """Set size and pace by the limit, or by the measured rate.

    The pace is twice the rate, so that a destination that became faster is noticed.
    """
    rate = window.rate
    if head.max_per_second is not None:
        may_be_slower = head.is_slow or head.max_in_flight is not None
        rate = min(head.max_per_second, max(rate, _SLOWEST_PACE)) if may_be_slower else head.max_per_second
        window.pace = 2 * rate
    else:
        window.pace = max(_SLOWEST_PACE, 2 * rate)
    window.size = max(SMALLEST_WINDOW, int(WINDOW_SECONDS * rate), 2 * (head.max_in_flight or 0))
