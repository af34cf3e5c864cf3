"""Restart the processes that end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from embedded.errors import EmbeddedError
from embedded.stack import Piece
from shared.doubling_pause import DoublingPause

_CHECK_SECONDS = 0.2
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
# A process that ran this long counts as healthy: its next end is treated as its first.
_HEALTHY_SECONDS = 30.0


@dataclass
class _Watch:
    """The state of one piece."""

    piece: Piece
    started_at: float
    pause: DoublingPause = field(default_factory=lambda: DoublingPause(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))
    start_at: float | None = None


class Supervisor:
    """Restarts pieces that end, and prints what it does."""

    def __init__(
        self, pieces: Sequence[Piece], say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Store the pieces."""
        self._watches = [_Watch(piece, clock()) for piece in pieces]
        self._say = say
        self._clock = clock

    def run(self) -> None:
        """Watch the pieces until an exception, such as that of Ctrl-C."""
        while True:
            self.run_once()
            time.sleep(_CHECK_SECONDS)

    def run_once(self) -> None:
        """Check each piece once; one that waits for its restart does not hold up the others."""
        for watch in self._watches:
            if not watch.piece.running:
                self._bring_back(watch)

    def _bring_back(self, watch: _Watch) -> None:
        now = self._clock()
        if watch.start_at is None:
            if now - watch.started_at > _HEALTHY_SECONDS:
                watch.pause.reset()
            self._plan(watch, f"ended ({_how(watch.piece.exit_code)})")
        elif now >= watch.start_at:
            watch.start_at = None
            watch.started_at = now
            try:
                watch.piece.start()
            except EmbeddedError as error:
                self._plan(watch, f"could not be started: {error}")
            else:
                self._say(f"{watch.piece.name} runs again")

    def _plan(self, watch: _Watch, what_happened: str) -> None:
        pause_seconds = watch.pause.next()
        self._say(f"{watch.piece.name} {what_happened}; it is restarted in {pause_seconds:g} s")
        watch.start_at = self._clock() + pause_seconds


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"
