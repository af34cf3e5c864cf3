"""The state that an OutboxWorker's threads share: how many messages are in hand, and whether to continue."""

import threading
from time import monotonic
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 1
"""How often a waiting thread checks whether to stop."""


class WorkerState:
    """Limits the messages in hand, and passes on orders to stop or to pause."""

    def __init__(self, *, capacity: int, max_jobs: int | None) -> None:
        """Start without a message.

        Args:
            capacity: how many messages may be in hand at once, from the pop to the outcome.
            max_jobs: how many jobs to take in all; None for no limit.

        """
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._suspended = False
        self._capacity = capacity
        self._jobs_left = max_jobs
        self._in_hand = 0
        self._places_lost = 0
        self._prepared_beside = 0
        self._redis_error: str | None = None
        self._cleanup_error: str | None = None
        self.jobs_done = 0
        self._last_job_at = monotonic()

    def wait_for_capacity(self) -> int:
        """Wait until jobs may be taken and return how many; 0 if no more are to be taken at all."""
        with self._changed:
            while not self.stopping.is_set() and self._jobs_left != 0:
                in_hand = self._in_hand - self._prepared_beside + self._places_lost
                free = 0 if self._suspended else self._capacity - in_hand
                if free > 0:
                    return free if self._jobs_left is None else min(free, self._jobs_left)
                self._changed.wait(POLL_SECONDS)
            return 0

    def add_jobs(self, jobs: int) -> None:
        """Count jobs that were popped."""
        with self._changed:
            self._in_hand += jobs
            if self._jobs_left is not None:
                self._jobs_left -= jobs

    def finish_jobs(self, jobs: int) -> None:
        """Count jobs that are finished, whatever their outcome."""
        with self._changed:
            self._in_hand -= jobs
            self.jobs_done += jobs
            self._last_job_at = monotonic()
            self._changed.notify_all()

    def begin_together(self, messages: int) -> None:
        """Count messages that are prepared together in one place as one: the other places are free for others."""
        with self._changed:
            self._prepared_beside += messages - 1
            self._changed.notify_all()

    def end_together(self, messages: int) -> None:
        """Count each of these messages again."""
        with self._changed:
            self._prepared_beside -= messages - 1

    def lose_place(self) -> None:
        """Count a place whose thread works for longer than it may."""
        with self._changed:
            self._places_lost += 1

    def regain_place(self) -> None:
        """Count a place whose thread has returned late."""
        with self._changed:
            self._places_lost -= 1
            self._changed.notify_all()

    @property
    def places_lost(self) -> int:
        """How many places have a thread that works for longer than it may."""
        return self._places_lost

    @property
    def is_busy(self) -> bool:
        """Whether a job is in hand."""
        return self._in_hand > 0

    @property
    def idle_seconds(self) -> float:
        """For how long no job has been in hand."""
        return 0.0 if self.is_busy else monotonic() - self._last_job_at

    @property
    def is_suspended(self) -> bool:
        """Whether `rq suspend` is in effect."""
        return self._suspended

    def suspend(self, *, on: bool) -> None:
        """Stop taking jobs for a while, or take them again."""
        with self._changed:
            if on != self._suspended:
                _log.info("worker.suspended" if on else "worker.resumed")
            self._suspended = on
            self._changed.notify_all()

    def stop(self) -> None:
        """Take no more jobs."""
        with self._changed:
            self.stopping.set()
            self._changed.notify_all()

    @property
    def redis_unavailable(self) -> bool:
        """Whether the last use of Redis failed. The next pop that succeeds ends it."""
        return self._redis_error is not None

    def report_cleanup(self, error: str | None) -> None:
        """Log once that Redis refuses to delete finished jobs although it is available."""
        was, self._cleanup_error = self._cleanup_error, error
        if error is not None and error != was:
            _log.error(
                "jobs.not_deleted",
                error=error,
                meaning="the jobs are finished, but their hashes stay in Redis",
                fix="let this Redis user run UNLINK and HINCRBY; free space on Redis' disk",
            )

    def report_redis(self, error: str | None) -> None:
        """Log once that Redis is unavailable, and once that it is available again."""
        if error == self._redis_error:
            return
        was, self._redis_error = self._redis_error, error
        if error is not None and was is None:
            _log.error("redis.unavailable", error=error, meaning="trying again until it is back")
        elif error is None:
            _log.info("redis.recovered")
