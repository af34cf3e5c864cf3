"""Watches the tasks' functions that run in an OutboxWorker: renews leases, and ends attempts that take too long."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Final

import psycopg
import structlog

from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import Outcome, Released
from consumer.model.results import RecordedResult
from consumer.stages.database import Database
from consumer.stages.handle import late
from consumer.threaded.state import WorkerState
from consumer.threaded.work_queue import WorkQueue
from shared.outbox.claiming import renewals

_log = structlog.get_logger(__name__)

_TICK_SECONDS: Final = 0.25
_LOCK_SECONDS: Final = 1.0
_NO_PLACE: Final = Released("no place of the worker became free")
_STOPPED: Final = Released("the worker was stopped while the task ran")

Results = SimpleQueue[AttemptResult | RecordedResult | None]


class TaskWatch(threading.Thread):
    """One thread for all places of a worker. It also releases work that waits too long for a place."""

    def __init__(self, database: Database, state: WorkerState, work: WorkQueue, results: Results) -> None:
        super().__init__(name="task-watch", daemon=True)
        self._database = database
        self._state = state
        self._work = work
        self._results = results
        self._lock = threading.Lock()
        self._running: set[WatchedTask] = set()
        self._ended = threading.Event()

    @contextmanager
    def begin(self, messages: Sequence[ClaimedMessage], seconds: float) -> Iterator["WatchedTask"]:
        """Watch a function that may run for so many seconds for these messages."""
        task = WatchedTask(messages, seconds, partial(self._state.end_together, len(messages)))
        self._state.begin_together(len(messages))
        with self._lock:
            self._running.add(task)
        try:
            yield task
        finally:
            with self._lock:
                self._running.discard(task)
            task.end()
            if task.is_lost:
                self._state.regain_place()
                _log.warning("task.returned_late", message_ids=task.ids, task=task.name)

    def run(self) -> None:
        """Watch until told to end."""
        while not self._ended.wait(_TICK_SECONDS):
            try:
                self.release_overdue_work()
                self.end_late_tasks()
                self.renew_leases()
            except Exception as exc:  # noqa: BLE001 - a bug must not end the thread
                _log.error("task_watch.failed", error=type(exc).__name__)
        self._database.close()

    def stop(self) -> None:
        """End the thread, and release what still runs or waits for a place: the process is about to end."""
        self._ended.set()
        for work in self._work.take_all():
            self._put(work.messages, _NO_PLACE)
        for task in self._all():
            self._put(task.end() or (), _STOPPED)

    def is_anything_running(self) -> bool:
        """Return whether a function runs whose attempt has not ended."""
        return any(not each.has_ended for each in self._all())

    def lost_threads(self) -> set[threading.Thread]:
        """Return the threads that run a function for longer than they may."""
        return {each.thread for each in self._all() if each.is_lost}

    def release_overdue_work(self) -> None:
        """Release what waits for a place for so long that none can begin it any more."""
        for work in self._work.take_overdue():
            self._put(work.messages, _NO_PLACE)

    def end_late_tasks(self) -> None:
        """Fail the attempts of functions that run for too long. Their threads cannot be ended."""
        for task in self._all():
            if monotonic() >= task.until and (messages := task.end(is_lost=True)) is not None:
                self._state.lose_place()
                _log.error(
                    "task.late",
                    message_ids=task.ids,
                    task=task.name,
                    seconds=task.seconds,
                    meaning="the attempt failed; its thread cannot be ended, and keeps its place until it returns",
                )
                for each in messages:
                    self._put([each], late(each, task.seconds))

    def renew_leases(self) -> None:
        """Renew all leases in one statement, when one of them has used a third of its time."""
        tasks = [each for each in self._all() if not each.has_ended]
        messages = [message for each in tasks for message in each.messages]
        if not any(monotonic() >= each.lease.begin_until for each in messages):
            return
        begun_at = monotonic()
        try:
            with self._database.transaction(lock_seconds=_LOCK_SECONDS) as connection:
                renewed = renewals.renew_claims(
                    connection, [each.claim for each in messages], messages[0].lease.seconds
                )
        except psycopg.Error as exc:
            for each in messages:
                _log.warning("lease.not_renewed", message_id=each.claim.id, error=type(exc).__name__)
            return
        for task in tasks:
            task.renew(renewed, begun_at)

    def _put(self, messages: Sequence[ClaimedMessage], outcome: Outcome) -> None:
        for each in messages:
            self._results.put(AttemptResult(each, outcome))

    def _all(self) -> Sequence["WatchedTask"]:
        with self._lock:
            return [*self._running]


class WatchedTask:
    """A task's function that runs now.

    Attributes:
        messages: its messages, with their present leases.
        seconds: how long it may run.
        until: the moment (monotonic) at which its attempt is late.
        thread: the thread that runs it.
        is_lost: whether the attempt was ended as late. Then the thread has no place until the function returns.
        has_ended: whether the attempt has ended, in any way.

    """

    def __init__(self, messages: Sequence[ClaimedMessage], seconds: float, after_end: Callable[[], object]) -> None:
        self.messages = messages
        self._after_end = after_end
        self.seconds = seconds
        self.until = monotonic() + seconds
        self.thread = threading.current_thread()
        self.is_lost = False
        self.has_ended = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The task's name."""
        return self.messages[0].claim.task

    @property
    def ids(self) -> list[int]:
        """The ids of the messages."""
        return [each.claim.id for each in self.messages]

    def end(self, *, is_lost: bool = False) -> Sequence[ClaimedMessage] | None:
        """End the attempt and return its messages; None if it has ended before."""
        with self._lock:
            if self.has_ended:
                return None
            self.has_ended = True
            self.is_lost = is_lost
            self._after_end()
            return self.messages

    def renew(self, renewed: set[int], at: float) -> None:
        """Count these messages' leases from a renewal that began at this moment (monotonic)."""
        with self._lock:
            self.messages = [
                each.with_lease(each.lease.renewed(at)) if each.claim.id in renewed else each for each in self.messages
            ]
