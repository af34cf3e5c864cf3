"""Watches the handlers that run in an OutboxWorker: renews their leases, and ends attempts that take too long."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from time import monotonic
from typing import Final

import psycopg
import structlog

from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import Released
from consumer.model.results import RecordedResult
from consumer.stages.database import Database
from consumer.stages.handle import late
from consumer.threaded.state import WorkerState
from consumer.threaded.work_queue import WorkQueue
from shared.outbox import claims

_log = structlog.get_logger(__name__)

_TICK_SECONDS: Final = 0.25
_LOCK_SECONDS: Final = 1.0
_NO_PLACE: Final = Released("no place of the worker became free")
_STOPPED: Final = Released("the worker was stopped while the message was handled")


class HandlerWatch(threading.Thread):
    """One thread for all handlers of a worker. It also releases work that waits too long for a place."""

    def __init__(
        self,
        database: Database,
        state: WorkerState,
        work: WorkQueue,
        results: "SimpleQueue[AttemptResult | RecordedResult | None]",
    ) -> None:
        super().__init__(name="handler-watch", daemon=True)
        self._database = database
        self._state = state
        self._work = work
        self._results = results
        self._lock = threading.Lock()
        self._running: set[WatchedHandler] = set()
        self._ended = threading.Event()

    @contextmanager
    def begin(self, message: ClaimedMessage, seconds: float) -> Iterator["WatchedHandler"]:
        """Watch a handler that may run for so many seconds."""
        handler = WatchedHandler(message, seconds)
        with self._lock:
            self._running.add(handler)
        try:
            yield handler
        finally:
            with self._lock:
                self._running.discard(handler)
            if handler.is_lost:
                self._state.regain_place()
                _log.warning("handler.returned_late", message_id=message.claim.id, task=message.claim.task)

    def run(self) -> None:
        """Watch until told to end."""
        while not self._ended.wait(_TICK_SECONDS):
            try:
                self._release_overdue_work()
                self._end_late_handlers()
                self._renew_leases()
            except Exception as exc:  # noqa: BLE001 - a bug must not end the thread
                _log.error("handler_watch.failed", error=type(exc).__name__)
        self._database.close()

    def stop(self) -> None:
        """End the thread, and release what still runs: the process is about to end."""
        self._ended.set()
        for handler in self._all():
            if (message := handler.end()) is not None:
                self._results.put(AttemptResult(message, _STOPPED))

    def lost_threads(self) -> set[threading.Thread]:
        """Return the threads whose handler works for longer than it may."""
        return {each.thread for each in self._all() if each.is_lost}

    def _release_overdue_work(self) -> None:
        for work in self._work.take_overdue():
            for message in work.messages:
                self._results.put(AttemptResult(message, _NO_PLACE))

    def _end_late_handlers(self) -> None:
        for handler in self._all():
            if monotonic() >= handler.until and (message := handler.end(is_lost=True)) is not None:
                self._state.lose_place()
                _log.error(
                    "handler.late",
                    message_id=message.claim.id,
                    task=message.claim.task,
                    seconds=handler.seconds,
                    meaning="the attempt failed; its thread cannot be ended, and keeps its place until it returns",
                )
                self._results.put(AttemptResult(message, late(message, handler.seconds)))

    def _renew_leases(self) -> None:
        """Renew all leases in one statement, when one of them has used a third of its time."""
        handlers = [each for each in self._all() if each.is_watched]
        if not any(monotonic() >= each.message.lease.begin_until for each in handlers):
            return
        begun_at = monotonic()
        lease_seconds = handlers[0].message.lease.seconds
        try:
            with self._database.transaction(lock_seconds=_LOCK_SECONDS) as connection:
                renewed = claims.renew_claims(connection, [each.message.claim for each in handlers], lease_seconds)
        except psycopg.Error as exc:
            for each in handlers:
                _log.warning("lease.not_renewed", message_id=each.message.claim.id, error=type(exc).__name__)
            return
        for each in handlers:
            if each.message.claim.id in renewed:
                each.renew(begun_at)

    def _all(self) -> Sequence["WatchedHandler"]:
        with self._lock:
            return [*self._running]


class WatchedHandler:
    """A handler that runs now.

    Attributes:
        message: its message, with its present lease.
        seconds: how long it may run.
        until: the moment (monotonic) at which its attempt is late.
        thread: the thread that runs it.
        is_lost: whether the attempt was ended as late. Then the thread has no place until it returns.

    """

    def __init__(self, message: ClaimedMessage, seconds: float) -> None:
        self.message = message
        self.seconds = seconds
        self.until = monotonic() + seconds
        self.thread = threading.current_thread()
        self.is_lost = False
        self._lock = threading.Lock()
        self._has_ended = False

    @property
    def is_watched(self) -> bool:
        """Whether the attempt has not ended yet."""
        return not self._has_ended

    def end(self, *, is_lost: bool = False) -> ClaimedMessage | None:
        """End the attempt and return its message; None if it has ended before."""
        with self._lock:
            if self._has_ended:
                return None
            self._has_ended = True
            self.is_lost = is_lost
            return self.message

    def renew(self, at: float) -> None:
        """Count the lease from a renewal that began at this moment (monotonic)."""
        with self._lock:
            self.message = self.message.with_lease(self.message.lease.renewed(at))
