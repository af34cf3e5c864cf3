"""The worker class: RQ's name, RQ's lists, RQ's `rq info`, and a loop of its own that loses nothing."""

import os
import signal
import sys
import threading
from time import monotonic
from types import FrameType
from typing import Any, Final

import click
import structlog
from redis import Redis
from redis.exceptions import RedisError
from redis.sentinel import SentinelConnectionPool
from rq import worker_registration
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import now
from rq.worker import SimpleWorker, WorkerStatus

from consumer.redis_connection import same_redis
from consumer.threaded.pool import Team
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.startup import EXIT_SETTINGS, STOP_SIGNALS
from consumer.threaded.state import LOOK_SECONDS, Control
from redis_client.retrying import no_retry
from redis_client.sentinels import leave_replaced_master
from shared.errors import SettingsError
from shared.rq_format.keys import Keys
from shared.rq_format.read import PlainSerializer
from shared.settings.processes import read_consumer_settings
from shared.tracing.spans import configure_tracing, tracing

_log = structlog.get_logger(__name__)

_WATCH_SECONDS: Final = 0.5
_BEAT_SECONDS: Final = 5.0

_TIDYING_SECONDS: Final = 2.0
"""The longest wait for Redis where outcomes or signals stand behind it."""


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
        self._beat_at = 0.0
        self._clients: tuple[Redis, ...] = ()

    @property
    def dequeue_timeout(self) -> int:
        """Give the seconds that one pop waits; RQ derives the socket's timeout from it."""
        return LOOK_SECONDS

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
        # A thread begins with the mask of the one that starts it (pthread_sigmask(3)): signals reach this one alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            settings = read_consumer_settings()
            configure_tracing("outbox-worker")
        except SettingsError as exc:
            click.echo(exc, err=True)
            sys.exit(EXIT_SETTINGS)
        patient = self.connection = self._patient_client()
        self._install_signal_handlers()
        self.birth_date = self.last_heartbeat = now()
        self._beat()
        _log.info("worker.started", queues=self.queue_names(), at_once=settings.concurrency, name=self.name)
        control = Control(at_once=_in_hand(settings.concurrency), max_jobs=max_jobs)
        # It gives up soon, where the other one waits 10 s longer than a pop may take.
        impatient = same_redis(patient, _TIDYING_SECONDS, _TIDYING_SECONDS)
        team = Team(settings, self._broker(patient), self._broker(impatient), control, burst=burst)
        # For all that this thread asks of Redis: it has signals to obey.
        self.connection = impatient
        self._clients = (impatient, patient)
        threading.excepthook = _tell_what_ended_a_thread
        team.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        start_anew = False
        try:
            start_anew = self._watch(team, control, max_idle_time)
        finally:
            everybody_left = team.leave()
        tracing().flush()
        self._say_goodbye()
        impatient.close()
        _log.info("worker.stopped", jobs=control.jobs_done, name=self.name)
        if start_anew or not everybody_left:
            self._start_anew_or_exit(start_anew=start_anew)
        self._ignore_signals()
        return control.jobs_done > 0

    def _broker(self, client: Redis) -> WorkerBroker:
        return WorkerBroker(client, Keys(RQ_KEY_PREFIX), self.queue_names(), self.name)

    def _patient_client(self) -> Redis:
        """Return RQ's own connection, whose deadline is longer than a pop may take.

        Behind Sentinel it is one of ours instead: it gives up a sentinel that is silent, whoever configured RQ's.
        """
        if isinstance(self.connection.connection_pool, SentinelConnectionPool):
            patient = same_redis(self.connection, self.connection_timeout, _TIDYING_SECONDS)
            self.connection.close()
            return patient
        # A pop whose answer was lost must not be repeated silently, and a push is never repeated by us at all.
        self.connection.set_retry(no_retry())
        return self.connection

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take no further job; what is in hand is finished. A second signal changes nothing."""
        self._stop_requested = True

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Treat a second signal like the first: a cold shutdown would only repeat a mail."""
        self.request_stop(signum, frame)

    def _install_signal_handlers(self) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, self.request_stop)

    @staticmethod
    def _ignore_signals() -> None:
        """Be deaf from here on: Python drops our handlers while it ends, and another signal would look like a crash."""
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)

    def _watch(self, team: Team, control: Control, max_idle_time: int | None) -> bool:
        """Look after the threads until the work is done or the worker is to stop; true when it has to start anew."""
        while team.is_whole():
            if self._stop_requested:
                return False
            if team.is_stuck():
                _log.error("thread.stuck", meaning="the others finish, then this process starts anew")
                return True
            if max_idle_time is not None and control.idle_seconds >= max_idle_time:
                return False
            self._obey_suspension(control)
            self._beat(control)
            team.wait(_WATCH_SECONDS)
        return not team.ended_as_it_should()

    def _start_anew_or_exit(self, *, start_anew: bool) -> None:
        """Get rid of a thread that cannot be ended: replace this process by a fresh one, or end it if it was told to.

        The message of that thread is taken back by a relay when its lease is over.

        A signal that came between the look at the flag and the exec would be forgotten with this program. Blocked, it
        stays pending; the new program inherits both (execve(2), signal(7)) and lets it in when it starts
        (consumer/threaded/startup.py). What came before the block has set the flag: pthread_sigmask runs Python's
        handlers.
        """
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        if self._stop_requested or not start_anew:
            os._exit(0)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves

    def _obey_suspension(self, control: Control) -> None:
        try:
            control.suspend(on=bool(self.connection.exists(WORKERS_SUSPENDED)))
        except (RedisError, OSError):
            return

    def _beat(self, control: Control | None = None) -> None:
        """Show that this worker lives, in one round trip; a Redis that was emptied learns of it again."""
        if monotonic() < self._beat_at:
            return
        self._beat_at = monotonic() + _BEAT_SECONDS
        leave_replaced_master(*self._clients)
        self.last_heartbeat = now()
        try:
            with self.connection.pipeline(transaction=False) as pipe:
                pipe.hset(self.key, mapping={**self.serialize(), "state": _state(control)})
                worker_registration.register(self, pipe)
                pipe.expire(self.key, self.worker_ttl + 60)
                pipe.execute()
        except (RedisError, OSError):
            return

    def _say_goodbye(self) -> None:
        try:
            self.register_death()  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            return


def _tell_what_ended_a_thread(problem: threading.ExceptHookArgs) -> None:
    """Name the error without its text, which may hold an address."""
    name = None if problem.thread is None else problem.thread.name
    _log.error("thread.ended", thread=name, error=problem.exc_type.__name__)


def _as_list(queues: Any) -> list[Any]:  # noqa: ANN401 - names or Queues, one or several
    return list(queues) if isinstance(queues, list | tuple) else [queues]


def _in_hand(mails_at_once: int) -> int:
    """Give how many messages to hold, so that no sender waits while others are claimed and acknowledged."""
    return mails_at_once + mails_at_once // 4


def _state(control: Control | None) -> str:
    """Say what `rq info` shows."""
    if control is None:
        return str(WorkerStatus.STARTED.value)
    if control.is_suspended:
        return str(WorkerStatus.SUSPENDED.value)
    return str((WorkerStatus.BUSY if control.is_busy else WorkerStatus.IDLE).value)
