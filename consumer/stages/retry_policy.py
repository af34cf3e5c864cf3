"""How a consumer waits for PostgreSQL."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from rq.timeouts import BaseTimeoutException

_LONGEST_PAUSE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Pauses between two tries, and when to give up.

    Attributes:
        sleep: waits for so many seconds; that of a worker wakes up when the worker is told to stop.
        may_give_up: is this process told to leave, and has it waited as long as it may?
        is_leaving: is this process told to leave? Then nothing new is begun.

    """

    sleep: Callable[[float], None] = time.sleep
    may_give_up: Callable[[], bool] = lambda: False
    is_leaving: Callable[[], bool] = lambda: False

    def pause(self, seconds: float) -> None:
        """Sleep; RQ's limit for the job does not matter any more, since an outcome is still to be written."""
        try:
            self.sleep(seconds)
        except BaseTimeoutException:
            return


def pauses() -> Iterator[float]:
    """Give the pauses between tries to reach PostgreSQL: 0.1, 0.2, 0.4 … 2 seconds."""
    seconds = 0.1
    while True:
        yield min(seconds, _LONGEST_PAUSE_SECONDS)
        seconds *= 2
