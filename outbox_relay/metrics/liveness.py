"""Decide whether a relay is alive (its loop runs) and ready (its passes work)."""

from collections.abc import Callable
from time import monotonic
from typing import Final

STILL_SECONDS: Final = 60.0
"""A pass takes milliseconds, or seconds during an outage. If a pass takes longer than this, the relay hangs."""

READY_SECONDS: Final = 20.0
"""The longest sleep is five seconds. A relay without a pass that worked for longer than this is not ready."""


class Liveness:
    """What the loop has done lately.

    A relay is alive after a pass that worked, and while it waits for an unavailable server, because a restart would not
    help. It is ready while its passes work. A relay that has just started is neither.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._began_at = clock()
        self._worked_at: float | None = None
        self._away: str | None = None

    def pass_begins(self) -> None:
        """Record the start of a pass."""
        self._began_at = self._clock()

    def pass_worked(self) -> None:
        """Record a pass without an error."""
        self._worked_at = self._clock()

    def outage(self, of: str) -> None:
        """Record which server is unavailable."""
        self._away = of

    def recovery(self) -> None:
        """Record that every server is available again."""
        self._away = None

    def is_alive(self) -> bool:
        """Return whether the process need not be restarted."""
        if self._away is not None:
            return self._clock() - self._began_at < STILL_SECONDS
        return self._has_worked_within(STILL_SECONDS)

    def is_ready(self) -> bool:
        """Return whether the relay's passes work."""
        return self._away is None and self._has_worked_within(READY_SECONDS)

    def describe(self) -> str:
        """Return one line of text about the loop."""
        now = self._clock()
        began = f"the latest pass began {now - self._began_at:.0f} s ago"
        if self._away is not None:
            return f"{self._away} is unavailable, and the relay waits for it; {began}"
        if self._worked_at is None:
            return f"no pass has worked yet; {began}"
        return f"the latest pass that worked ended {now - self._worked_at:.0f} s ago; {began}"

    def _has_worked_within(self, seconds: float) -> bool:
        return self._worked_at is not None and self._clock() - self._worked_at < seconds
