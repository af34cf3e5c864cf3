"""What the threads of an OutboxWorker tell each other."""

import threading
from time import monotonic
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1
"""How often a thread that waits looks whether it is to stop."""


class Control:
    """How many messages may be in hand, and whether to go on."""

    def __init__(self, *, at_once: int, max_jobs: int | None) -> None:
        """Begin.

        Args:
            at_once: how many messages may be in hand, from pop to outcome.
            max_jobs: how many jobs are taken in all; None for no limit.

        """
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._suspended = False
        self._at_once = at_once
        self._left = max_jobs
        self._in_hand = 0
        self._redis_error: str | None = None
        self._tidying_error: str | None = None
        self.jobs_done = 0
        self._last_job_at = monotonic()

    def wait_for_room(self) -> int:
        """Wait until jobs may be taken, and give how many; 0 when no more are to be taken at all."""
        with self._changed:
            while not self.stopping.is_set() and self._left != 0:
                room = 0 if self._suspended else self._at_once - self._in_hand
                if room:
                    return room if self._left is None else min(room, self._left)
                self._changed.wait(LOOK_SECONDS)
            return 0

    def took(self, jobs: int) -> None:
        """Count jobs that were popped."""
        with self._changed:
            self._in_hand += jobs
            if self._left is not None:
                self._left -= jobs

    def settled(self, jobs: int) -> None:
        """Count jobs that are out of our hands."""
        with self._changed:
            self._in_hand -= jobs
            self.jobs_done += jobs
            self._last_job_at = monotonic()
            self._changed.notify_all()

    @property
    def is_busy(self) -> bool:
        """Tell whether a job is in hand."""
        return self._in_hand > 0

    @property
    def idle_seconds(self) -> float:
        """Give for how long no job has been in hand."""
        return 0.0 if self.is_busy else monotonic() - self._last_job_at

    @property
    def is_suspended(self) -> bool:
        """Tell whether `rq suspend` was said."""
        return self._suspended

    def suspend(self, *, on: bool) -> None:
        """Take no further jobs for a while, or take them again."""
        with self._changed:
            if on != self._suspended:
                _log.info("worker.suspended" if on else "worker.resumed")
            self._suspended = on
            self._changed.notify_all()

    def stop(self) -> None:
        """Take no further jobs."""
        with self._changed:
            self.stopping.set()
            self._changed.notify_all()

    @property
    def redis_is_away(self) -> bool:
        """Tell whether Redis failed when it was last used: the next pop that succeeds shows that it is back."""
        return self._redis_error is not None

    def note_tidying(self, error: str | None) -> None:
        """Say once that Redis refuses to delete the jobs that are done, although it can be used."""
        was, self._tidying_error = self._tidying_error, error
        if error is not None and error != was:
            _log.error(
                "jobs.not_deleted",
                error=error,
                meaning="the jobs are done; their hashes stay in Redis",
                fix="let this Redis user run UNLINK and HINCRBY; make room on Redis's disk",
            )

    def note_redis(self, error: str | None) -> None:
        """Say once that Redis went away, and once that it is back."""
        if error == self._redis_error:
            return
        was, self._redis_error = self._redis_error, error
        if error is not None and was is None:
            _log.error("redis.unavailable", error=error, meaning="trying again until it is back")
        elif error is None:
            _log.info("redis.recovered")
