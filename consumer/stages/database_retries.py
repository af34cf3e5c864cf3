"""How a consumer retries a statement while PostgreSQL is unavailable. The retries of a message are in backoff.py."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rq.timeouts import BaseTimeoutException

from shared.doubling_pause import DoublingPause

LONGEST_PAUSE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How to pause between two tries, and when to stop trying.

    Attributes:
        sleep: waits for the given seconds. A worker's returns early when the worker is told to stop.
        deadline_passed: whether this process is shutting down and has waited as long as it may.
        shutting_down: whether this process is shutting down. Then it starts nothing new.

    """

    sleep: Callable[[float], None] = time.sleep
    deadline_passed: Callable[[], bool] = lambda: False
    shutting_down: Callable[[], bool] = lambda: False

    def sleep_before_record(self, seconds: float) -> None:
        """Sleep, and ignore RQ's timeout of the job: the outcome still has to be recorded."""
        try:
            self.sleep(seconds)
        except BaseTimeoutException:
            return


def database_pause() -> DoublingPause:
    """Return the pause between tries to reach PostgreSQL: 0.1, 0.2, 0.4 … 2 seconds."""
    return DoublingPause(0.1, LONGEST_PAUSE_SECONDS)
