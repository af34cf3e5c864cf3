"""The rest between two passes of a relay that finds messages each time it looks."""

from typing import Final

from outbox_relay.loop.wakeup import Alarm


class Rest:
    """How long the relay lets messages gather before its next pass, while they keep coming.

    Without it each pass would find the few messages that came during the last one: a busy loop of small batches, on the
    cores of those who sign up. A message that comes to a sleeping relay never waits.
    """

    _FIRST_SECONDS: Final = 0.002
    _LONGEST_SECONDS: Final = 0.064

    def __init__(self) -> None:
        """Begin with the shortest."""
        self._seconds = self._FIRST_SECONDS

    def take(self, alarm: Alarm) -> None:
        """Rest, unless the alarm rings; the next rest is twice as long."""
        alarm.sleep(self._seconds)
        self._seconds = min(self._LONGEST_SECONDS, self._seconds * 2)

    def end(self) -> None:
        """Begin with the shortest again: nothing is due."""
        self._seconds = self._FIRST_SECONDS
