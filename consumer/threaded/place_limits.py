"""How many of a worker's places slow destinations may hold, so that others always have the other half."""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from enum import Enum
from time import monotonic
from typing import Final

from shared.outbox.messages import MAIL

SLOW_SECONDS: Final = 1.0
"""A destination is slow while a send to it runs for longer, or if its latest one did."""

RECENT_SECONDS: Final = 10.0
"""For how long a destination that was slow counts when the slow half is divided."""

_SMALLEST_DIVIDED: Final = 2
"""A worker with no more places keeps none for first sends."""

_NAMES_KEPT: Final = 10_000


class Turn:
    """The time for which one place works for one destination.

    Attributes:
        name: the destination.
        is_probe: whether it tests an unavailable destination: then it counts as slow from its start.
        is_first: whether it finds out if the destination is slow, beside the half of the slow ones.
        started_at: when (monotonic) it started.

    """

    def __init__(self, name: str, *, is_probe: bool, is_first: bool, started_at: float) -> None:
        self.name = name
        self.is_probe = is_probe
        self.is_first = is_first
        self.started_at = started_at


class NoTurn(Enum):
    """Why a message may not begin now."""

    WAIT = "it is not known yet whether the destination is slow"
    REFUSED = "the destination is slow, and holds as many places as it may"


class PlaceLimits:
    """Divides the places of one worker. The caller locks it.

    All slow destinations and all probes together hold at most half of the places, one at least. A destination counts as
    slow until a send to it has ended within a second; until then its messages wait for a moment instead of being
    refused. Its first send may have a place beside that half, of which a quarter of all is kept for first sends: else
    slow destinations would delay one of which nothing is known. Mail may always have one place.
    """

    def __init__(self, places: int, clock: Callable[[], float] = monotonic) -> None:
        self._half = max(1, places // 2)
        self._for_first = max(places // 4, 1 if places > _SMALLEST_DIVIDED else 0)
        self._clock = clock
        self._running: set[Turn] = set()
        self._is_fast: OrderedDict[str, bool] = OrderedDict()
        """Of each destination whether its latest send was fast."""
        self._slow_at: dict[str, float] = {}
        """When (monotonic) a place was last wanted for each slow destination."""

    def begin(self, name: str, *, is_probe: bool = False, waited_seconds: float = 0.0) -> Turn | NoTurn:
        """Take a place for a destination, if it may have one more.

        Args:
            name: the destination.
            is_probe: whether the message tests an unavailable destination.
            waited_seconds: for how long the message has been waiting.

        """
        now = self._clock()
        is_probe = is_probe and name != MAIL
        running_long = {each.name for each in self._running if now - each.started_at > SLOW_SECONDS}
        if is_probe or self._is_slow(name, running_long):
            held = [each for each in self._running if not each.is_first and self._counts_as_slow(each, running_long)]
            own = sum(each.name == name for each in self._running)
            is_known = is_probe or name in self._is_fast or name in running_long
            is_within_half = len(held) < self._half and own < self._most_of_one(name, now)
            is_first = not is_known and own == 0 and sum(each.is_first for each in self._running) < self._for_first
            if not is_within_half and not is_first and not (name == MAIL and own == 0):
                return NoTurn.REFUSED if is_known or waited_seconds > SLOW_SECONDS else NoTurn.WAIT
            return self._started(name, now, is_probe=is_probe, is_first=is_first and not is_within_half)
        return self._started(name, now)

    def end(self, turn: Turn, *, has_contacted: bool) -> bool:
        """End a turn, and return whether it took long.

        Args:
            turn: the turn.
            has_contacted: whether the destination was contacted. Otherwise a short turn says nothing about it.

        """
        self._running.discard(turn)
        took_long = self._clock() - turn.started_at > SLOW_SECONDS
        if has_contacted or took_long:
            self._is_fast[turn.name] = not took_long
            self._is_fast.move_to_end(turn.name)
            if len(self._is_fast) > _NAMES_KEPT:
                self._is_fast.popitem(last=False)
            if not took_long:
                self._slow_at.pop(turn.name, None)
        return took_long

    def _started(self, name: str, now: float, *, is_probe: bool = False, is_first: bool = False) -> Turn:
        turn = Turn(name, is_probe=is_probe, is_first=is_first, started_at=now)
        self._running.add(turn)
        return turn

    def _counts_as_slow(self, turn: Turn, running_long: AbstractSet[str]) -> bool:
        return turn.is_probe or self._is_slow(turn.name, running_long)

    def _most_of_one(self, name: str, now: float) -> int:
        """Return how many places one slow destination may hold, with this one among those that want some."""
        self._slow_at[name] = now
        for other in [each for each, at in self._slow_at.items() if now - at > RECENT_SECONDS]:
            del self._slow_at[other]
        return max(1, self._half // len(self._slow_at))

    def _is_slow(self, name: str, running_long: AbstractSet[str]) -> bool:
        return not self._is_fast.get(name, False) or name in running_long
