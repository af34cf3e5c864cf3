"""The worker class: RQ's name, RQ's lists, RQ's `rq info`, and a loop of its own that loses nothing."""

import os
import signal
import sys
import time
from time import monotonic
from types import FrameType
from typing import Any, Final

import click
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import worker_registration
from rq.job import Job
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import now
from rq.worker import SimpleWorker, WorkerStatus

from consumer.processing import Processor
from consumer.rq_jobs import PlainSerializer
from consumer.slots import POP_SECONDS, Control, Slot, SlotBroker
from consumer.startup import EXIT_SETTINGS
from shared.errors import SettingsError
from shared.settings import ConsumerSettings, read_consumer_settings

_log = structlog.get_logger(__name__)

_WATCH_SECONDS: Final = 0.5
_BEAT_SECONDS: Final = 5.0
_LEAVE_SECONDS: Final = 5.0
"""Added to a send's deadline when the worker leaves: the time for the outcome's commit."""


class OutboxWorker(SimpleWorker):
    """Works on several messages at once, in threads, with connections that stay open.

    What it does otherwise than RQ's own classes: nothing that comes out of Redis is run or imported (a job names a
    message, PostgreSQL decides); callbacks, webhooks and remote commands are not looked at; SIGTERM sets a flag, so
    that no popped job is dropped; an absent Redis or PostgreSQL is waited for. `rq info`, `rq suspend`, `rq resume`,
    `--burst`, `--max-jobs` and `--max-idle-time` work as usual; `--with-scheduler` and `--dequeue-strategy` have
    nothing to do here.
    """

    def __init__(self, queues: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - RQ's signature is wider
        """Build RQ's worker, with queues that read jobs as plain data whatever serializer the command line names."""
        names = [queue if isinstance(queue, str) else queue.name for queue in _as_list(queues)]
        kwargs.update(serializer=PlainSerializer, job_class=Job, queue_class=None)
        super().__init__(names, *args, **kwargs)
        self._control = Control(max_jobs=None)
        self._slots: list[Slot] = []
        self._beat_at = 0.0
        self._leave_by: float | None = None

    @property
    def dequeue_timeout(self) -> int:
        """Give the seconds that one pop waits; RQ derives the socket's timeout from it."""
        return POP_SECONDS

    def work(  # noqa: PLR0913, PLR0917 - RQ's signature
        self,
        burst: bool = False,  # noqa: FBT001, FBT002
        logging_level: str | None = None,  # noqa: ARG002
        date_format: str = "",  # noqa: ARG002
        log_format: str = "",  # noqa: ARG002
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,  # noqa: ARG002, FBT001, FBT002
        dequeue_strategy: object = None,  # noqa: ARG002
    ) -> bool:
        """Take and finish jobs until stopped. True when at least one was taken.

        Raises:
            SystemExit: a setting is missing or malformed; its name was printed.

        """
        try:
            settings = read_consumer_settings()
        except SettingsError as exc:
            click.echo(exc, err=True)
            sys.exit(EXIT_SETTINGS)
        # A pop whose answer was lost must not be repeated silently, and a push is never repeated by us at all.
        self.connection.set_retry(Retry(NoBackoff(), 0))
        self._control = Control(max_jobs=max_jobs)
        self._install_signal_handlers()
        self.birth_date = self.last_heartbeat = now()
        self.set_status_quietly(WorkerStatus.STARTED)
        _log.info("worker_started", queues=self.queue_names(), slots=settings.concurrency, name=self.name)
        self._slots = [self._slot(number, settings, burst=burst) for number in range(settings.concurrency)]
        for slot in self._slots:
            slot.start()
        self._watch(settings, max_idle_time)
        self._leave(settings)
        self._ignore_signals()
        return self._control.jobs_done > 0

    def set_status_quietly(self, status: WorkerStatus) -> None:
        """Show the worker in `rq info`; Redis away or emptied: the next beat shows it again."""
        self._state = status
        self._beat_at = 0.0
        self._beat()

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take no further job; what is in hand is finished. A second signal changes nothing."""
        self._stop_requested = True

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Treat a second signal like the first: a cold shutdown would only repeat a mail."""
        self.request_stop(signum, frame)

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGINT, self.request_stop)
        signal.signal(signal.SIGTERM, self.request_stop)

    @staticmethod
    def _ignore_signals() -> None:
        """Be deaf from here on: Python drops our handlers while it ends, and another signal would look like a crash."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _slot(self, number: int, settings: ConsumerSettings, *, burst: bool) -> Slot:
        processor = Processor(settings, sleep=self._sleep_of_slot, may_give_up=self._must_leave)
        keys = [queue.key for queue in self.queues]
        broker = SlotBroker(self.connection, keys, Job.redis_job_namespace_prefix, self.key)
        return Slot(number, broker, processor, self._control, burst=burst)

    def _sleep_of_slot(self, seconds: float) -> None:
        if self._control.stopping.wait(seconds):
            time.sleep(min(seconds, _WATCH_SECONDS))  # stopping, but an outcome is still to be written

    def _must_leave(self) -> bool:
        """Tell whether a stopping worker has waited for PostgreSQL as long as it may."""
        return self._leave_by is not None and monotonic() >= self._leave_by

    def _watch(self, settings: ConsumerSettings, max_idle_time: int | None) -> None:
        """Look after the slots until all have ended or the worker is to stop."""
        while any(slot.is_alive() for slot in self._slots):
            if self._stop_requested:
                return
            if any(self._is_stuck(slot, settings) for slot in self._slots):
                _log.error("slot_stuck", meaning="the others finish, then this process starts anew")
                return
            if max_idle_time is not None and self._idle_seconds() >= max_idle_time:
                return
            self._obey_suspension()
            self._beat()
            next((slot for slot in self._slots if slot.is_alive()), self._slots[0]).join(_WATCH_SECONDS)

    def _leave(self, settings: ConsumerSettings) -> None:
        """Wait for the jobs in hand, at most for a send's deadline; a slot that hangs does not keep the process."""
        self._leave_by = monotonic() + settings.send_deadline_seconds + _LEAVE_SECONDS
        self._control.stopping.set()
        for slot in self._slots:
            if not self._is_stuck(slot, settings):
                slot.join(max(0.0, self._leave_by - monotonic()))
        hangs = any(slot.is_alive() for slot in self._slots)
        self._say_goodbye()
        _log.info("worker_stopped", jobs=self._control.jobs_done, name=self.name)
        if hangs:
            self._start_anew_or_exit()

    def _start_anew_or_exit(self) -> None:
        """Get rid of a thread that cannot be ended: replace this process by a fresh one, or end it if it was told to.

        The message of that thread is taken back by a relay when its lease is over.
        """
        sys.stderr.flush()
        if self._stop_requested:
            os._exit(0)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves

    @staticmethod
    def _is_stuck(slot: Slot, settings: ConsumerSettings) -> bool:
        """Tell whether a slot handles one message for longer than any lease can explain (not: waits for PostgreSQL)."""
        since = slot.handling_since
        return since is not None and monotonic() - since > settings.run_lease_seconds + _LEAVE_SECONDS

    def _idle_seconds(self) -> float:
        busy = any(slot.busy for slot in self._slots)
        return 0.0 if busy else monotonic() - self._control.last_job_at

    def _obey_suspension(self) -> None:
        try:
            suspended = bool(self.connection.exists(WORKERS_SUSPENDED))
        except (RedisError, OSError):
            return
        if suspended == self._control.running.is_set():
            _log.info("suspended" if suspended else "resumed")
        if suspended:
            self._control.running.clear()
        else:
            self._control.running.set()

    def _beat(self) -> None:
        """Show that this worker lives, in one round trip; a Redis that was emptied learns of it again."""
        if monotonic() < self._beat_at:
            return
        self._beat_at = monotonic() + _BEAT_SECONDS
        self.last_heartbeat = now()
        try:
            with self.connection.pipeline(transaction=False) as pipe:
                pipe.hset(self.key, mapping={**self.serialize(), "state": self._present_state()})
                worker_registration.register(self, pipe)
                pipe.expire(self.key, self.worker_ttl + 60)
                pipe.execute()
        except (RedisError, OSError):
            return

    def _present_state(self) -> str:
        if not self._control.running.is_set():
            return str(WorkerStatus.SUSPENDED.value)
        busy = any(slot.busy for slot in self._slots)
        return str((WorkerStatus.BUSY if busy else WorkerStatus.IDLE).value)

    def _say_goodbye(self) -> None:
        try:
            self.register_death()  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            return


def _as_list(queues: Any) -> list[Any]:  # noqa: ANN401 - names or Queues, one or several
    return list(queues) if isinstance(queues, list | tuple) else [queues]
