"""OutboxWorker: an RQ worker class that works on RQ's queues with a main loop of its own, which loses no job."""

import os
import signal
import sys
import threading
from time import monotonic
from types import FrameType
from typing import Any, ClassVar, Final, NoReturn

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
from consumer.task.registry import load_tasks
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.startup import EXIT_SETTINGS, STOP_SIGNALS
from consumer.threaded.state import POLL_SECONDS, WorkerState
from consumer.threaded.timings import WorkerTimings
from consumer.threaded.worker_pool import WorkerPool
from redis_client.retrying import no_retry
from redis_client.sentinels import leave_replaced_master
from shared.errors import SettingsError
from shared.rq_format.keys import Keys
from shared.rq_format.read import PlainSerializer
from shared.settings.consumer import read_consumer_settings
from shared.tracing.configuration import configure_tracing
from shared.tracing.spans import tracing

_log = structlog.get_logger(__name__)

EXIT_PLACES_LOST: Final = 75
"""The exit code of a worker of whose places half were lost to tasks that do not return (EX_TEMPFAIL)."""

_WATCH_SECONDS: Final = 0.5

_SHORT_TIMEOUT_SECONDS: Final = 2.0
"""The longest wait for Redis where results or signals wait behind it."""


class OutboxWorker(SimpleWorker):
    """Processes several messages at once, in threads, with connections that stay open.

    It differs from RQ's own classes: nothing that comes from Redis is run or imported (a job names a message, and
    PostgreSQL decides); callbacks, webhooks and remote commands are ignored; SIGTERM sets a flag, so that no popped job
    is dropped; it waits for Redis and PostgreSQL while they are unavailable. `rq info`, `rq suspend`, `rq resume`,
    `--burst`, `--max-jobs` and `--max-idle-time` work as usual. `--with-scheduler` and `--dequeue-strategy` have no
    effect.

    Attributes:
        timings: its pauses and limits.

    """

    timings: ClassVar[WorkerTimings] = WorkerTimings()

    def __init__(self, queues: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - RQ's signature is wider
        """Create RQ's worker. Its queues read jobs as plain data, whatever serializer the command line names."""
        names = [queue if isinstance(queue, str) else queue.name for queue in _as_list(queues)]
        kwargs.update(serializer=PlainSerializer, job_class=Job, queue_class=None)
        super().__init__(names, *args, **kwargs)
        self._heartbeat_at = 0.0
        self._clients: tuple[Redis, ...] = ()

    @property
    def dequeue_timeout(self) -> int:
        """The seconds that one pop waits. RQ derives the socket's timeout from it."""
        return POLL_SECONDS

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
        """Take and finish jobs until stopped. Return whether at least one was taken.

        Raises:
            SystemExit: a setting is missing or malformed; its name was printed.

        """
        # A thread inherits the signal mask of the one that starts it (pthread_sigmask(3)): only this one gets signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            settings = read_consumer_settings()
            tasks = load_tasks(settings.task_modules)
            configure_tracing("outbox-worker")
        except SettingsError as exc:
            click.echo(exc, err=True)
            sys.exit(EXIT_SETTINGS)
        long_timeout = self.connection = self._client_with_long_timeout()
        self._install_signal_handlers()
        self.birth_date = self.last_heartbeat = now()
        self._send_heartbeat()
        _log.info("worker.started", queues=self.queue_names(), at_once=settings.concurrency, name=self.name)
        state = WorkerState(capacity=_capacity(settings.concurrency), max_jobs=max_jobs)
        # The client with the long timeout waits 10 s longer than a pop may take; this one does not.
        short_timeout = same_redis(long_timeout, _SHORT_TIMEOUT_SECONDS, _SHORT_TIMEOUT_SECONDS)
        fetching, completing = self._broker(long_timeout), self._broker(short_timeout)
        pool = WorkerPool(settings, tasks, fetching, completing, state, burst=burst, timings=self.timings)
        # This thread has to react to signals, so it uses the client with the short timeout.
        self.connection = short_timeout
        self._clients = (short_timeout, long_timeout)
        threading.excepthook = _log_thread_error
        pool.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        restart = False
        try:
            restart = self._watch(pool, state, max_idle_time)
            if not restart:
                pool.finish_tasks(lambda: self._stop_requested)
        finally:
            all_ended = pool.shutdown()
        tracing().flush()
        self._unregister()
        short_timeout.close()
        _log.info("worker.stopped", jobs=state.jobs_done, name=self.name)
        if pool.has_lost_places():
            sys.stderr.flush()
            os._exit(EXIT_PLACES_LOST)
        if restart or not all_ended:
            self._restart_or_exit(restart=restart)
        self._ignore_signals()
        return state.jobs_done > 0

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take no more jobs and finish those in hand. A second signal changes nothing."""
        self._stop_requested = True

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Handle a second signal like the first: a cold shutdown would only send a mail twice."""
        self.request_stop(signum, frame)

    def replace_process(self) -> NoReturn:
        """Run this program again, in this process."""
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very program

    def _broker(self, client: Redis) -> WorkerBroker:
        return WorkerBroker(client, Keys(RQ_KEY_PREFIX), self.queue_names(), self.name)

    def _client_with_long_timeout(self) -> Redis:
        """Return RQ's own client, whose timeout is longer than a pop may take.

        With Sentinel it is a new client instead, which gives up on a sentinel that does not answer.
        """
        if isinstance(self.connection.connection_pool, SentinelConnectionPool):
            client = same_redis(self.connection, self.connection_timeout, _SHORT_TIMEOUT_SECONDS)
            self.connection.close()
            return client
        # A pop whose answer was lost must not be repeated silently, and this worker never repeats a push.
        self.connection.set_retry(no_retry())
        return self.connection

    def _install_signal_handlers(self) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, self.request_stop)

    @staticmethod
    def _ignore_signals() -> None:
        """Ignore signals from here on: Python drops its handlers at exit, and a signal would then look like a crash."""
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)

    def _watch(self, pool: WorkerPool, state: WorkerState, max_idle_time: int | None) -> bool:
        """Watch the threads until the work is done or the worker is told to stop. Return whether to restart."""
        while pool.all_alive():
            if self._stop_requested:
                return False
            if pool.has_lost_places():
                _log.error(
                    "places.lost",
                    meaning="half of the places have a task that does not return: the others finish, then this"
                    " process exits for its supervisor to start it again",
                )
                return False
            if pool.has_stuck_thread():
                _log.error("thread.stuck", meaning="the other threads finish, then this process restarts")
                return True
            if max_idle_time is not None and state.idle_seconds >= max_idle_time:
                return False
            self._check_suspension(state)
            self._send_heartbeat(state)
            pool.wait(_WATCH_SECONDS)
        return not pool.has_finished()

    def _restart_or_exit(self, *, restart: bool) -> None:
        """Replace a thread that cannot be ended: restart this process, or exit if it was told to stop.

        A relay reaps the thread's claim when its lease is over.

        A signal between the check of the flag and the exec would be lost with this program. So signals are blocked
        first and stay pending. The new program inherits the mask and the pending signals (execve(2), signal(7)), and
        unblocks them when it starts (consumer/threaded/startup.py). A signal from before the block has set the flag,
        since pthread_sigmask runs Python's handlers.
        """
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        if self._stop_requested or not restart:
            os._exit(0)
        self.replace_process()

    def _check_suspension(self, state: WorkerState) -> None:
        try:
            state.suspend(on=bool(self.connection.exists(WORKERS_SUSPENDED)))
        except (RedisError, OSError):
            return

    def _send_heartbeat(self, state: WorkerState | None = None) -> None:
        """Register this worker in Redis, in one round trip. This also repairs a Redis that was emptied."""
        if monotonic() < self._heartbeat_at:
            return
        self._heartbeat_at = monotonic() + self.timings.heartbeat_seconds
        leave_replaced_master(*self._clients)
        self.last_heartbeat = now()
        try:
            with self.connection.pipeline(transaction=False) as pipe:
                pipe.hset(self.key, mapping={**self.serialize(), "state": _status(state)})
                worker_registration.register(self, pipe)
                pipe.expire(self.key, self.worker_ttl + 60)
                pipe.execute()
        except (RedisError, OSError):
            return

    def _unregister(self) -> None:
        try:
            self.register_death()  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            return


def _log_thread_error(problem: threading.ExceptHookArgs) -> None:
    """Log the error's name without its text, which may contain an address."""
    name = None if problem.thread is None else problem.thread.name
    _log.error("thread.ended", thread=name, error=problem.exc_type.__name__)


def _as_list(queues: Any) -> list[Any]:  # noqa: ANN401 - names or Queues, one or several
    return list(queues) if isinstance(queues, list | tuple) else [queues]


def _capacity(mails_at_once: int) -> int:
    """Return how many messages to have in hand, so that no sender waits while others are claimed and recorded."""
    return mails_at_once + mails_at_once // 4


def _status(state: WorkerState | None) -> str:
    """Return the status that `rq info` shows."""
    if state is None:
        return str(WorkerStatus.STARTED.value)
    if state.is_suspended:
        return str(WorkerStatus.SUSPENDED.value)
    return str((WorkerStatus.BUSY if state.is_busy else WorkerStatus.IDLE).value)
