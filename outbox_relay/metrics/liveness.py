"""Whether a relay's loop turns, and whether its passes work."""

from collections.abc import Callable
from time import monotonic
from typing import Final

STILL_SECONDS: Final = 60.0
"""A pass takes milliseconds, and an outage ends it within seconds: a relay whose pass takes so long is stuck."""

READY_SECONDS: Final = 20.0
"""The longest sleep is five seconds: a relay that has made no pass that worked for so long does not do its work."""


class Liveness:
    """What the loop has done lately.

    Alive is a loop that turns: after a pass that worked, or while it waits for a server that is away, since starting it
    again would not bring the server back. Ready is a loop whose passes work. A relay that has only started is neither.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Begin as a relay that has only started."""
        self._clock = clock
        self._began_at = clock()
        self._worked_at: float | None = None
        self._away: str | None = None

    def pass_begins(self) -> None:
        """Note that the loop turns."""
        self._began_at = self._clock()

    def pass_worked(self) -> None:
        """Note that a pass was made without a failure."""
        self._worked_at = self._clock()

    def outage(self, of: str) -> None:
        """Note which server is away."""
        self._away = of

    def recovery(self) -> None:
        """Note that none is away any more."""
        self._away = None

    def is_alive(self) -> bool:
        """Return whether the process should be left alone."""
        if self._away is not None:
            return self._clock() - self._began_at < STILL_SECONDS
        return self._has_worked_within(STILL_SECONDS)

    def is_ready(self) -> bool:
        """Return whether the relay does its work."""
        return self._away is None and self._has_worked_within(READY_SECONDS)

    def describe(self) -> str:
        """Return one line about what the loop does."""
        now = self._clock()
        began = f"the latest pass began {now - self._began_at:.0f} s ago"
        if self._away is not None:
            return f"{self._away} is away, and the relay waits for it; {began}"
        if self._worked_at is None:
            return f"no pass has worked yet; {began}"
        return f"the latest pass that worked ended {now - self._worked_at:.0f} s ago; {began}"

    def _has_worked_within(self, seconds: float) -> bool:
        return self._worked_at is not None and self._clock() - self._worked_at < seconds
