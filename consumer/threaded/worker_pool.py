"""The threads of an OutboxWorker and the queues between them: Fetcher -> SenderThreads -> Completer."""

import time
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Final

from consumer.model.message import AttemptResult
from consumer.model.results import RecordedResult
from consumer.stages.claim import Claimer
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.limiter import Limiter
from consumer.stages.place import Place
from consumer.stages.prepare import Preparer
from consumer.stages.record import ResultRecorder
from consumer.stages.send import Clients, Sender, open_mailer, open_webhook_client
from consumer.stages.sending.late_answers import LateAnswers
from consumer.task.registry import TaskRegistry
from consumer.threaded.completer import Completer
from consumer.threaded.fetcher import Fetcher
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.sender_thread import SenderThread
from consumer.threaded.state import WorkerState
from consumer.threaded.task_watch import TaskWatch
from consumer.threaded.timings import WorkerTimings
from consumer.threaded.work_queue import WorkQueue
from shared.settings.consumer import ConsumerSettings

_Thread = Fetcher | SenderThread | Completer | TaskWatch
_WorkingThread = Fetcher | SenderThread | Completer

_TIME_TO_LOG_SECONDS: Final = 1.0
"""What is left of the shutdown's time when the last try to reach PostgreSQL ends."""

_RETRY_SECONDS: Final = 0.5


class WorkerPool:
    """Runs the pipeline: the Fetcher claims and prepares, the SenderThreads send, the Completer records."""

    def __init__(
        self,
        settings: ConsumerSettings,
        tasks: TaskRegistry,
        fetching_broker: WorkerBroker,
        completing_broker: WorkerBroker,
        state: WorkerState,
        *,
        burst: bool,
        timings: WorkerTimings,
    ) -> None:
        """Create the threads and start none. Fetcher and Completer do not share their connections."""
        self._settings = settings
        self._state = state
        self._timings = timings
        self._shutdown_by: float | None = None
        policy = RetryPolicy(self._sleep, self._deadline_passed, state.stopping.is_set)
        self._work = WorkQueue(settings.concurrency)
        self._results: SimpleQueue[AttemptResult | RecordedResult | None] = SimpleQueue()
        fetching, completing = Database(settings.database_url), Database(settings.database_url)
        self._fetcher = Fetcher(
            fetching_broker,
            state,
            fetching,
            Claimer(fetching, settings.run_lease_seconds, policy, tasks.known_tasks()),
            Preparer(fetching, settings, tasks, policy),
            burst=burst,
            timings=timings,
            work=self._work,
            results=self._results,
        )
        self._mailer = open_mailer(settings, connections=settings.concurrency)
        clients = Clients(self._mailer, open_webhook_client(settings))
        late_answers = LateAnswers(
            settings.database_url,
            senders=lambda: min(settings.concurrency, self._mailer.connection_limit),
            shutting_down=state.stopping.is_set,
        )
        self._watch = TaskWatch(Database(settings.database_url), state, self._work, self._results)
        limiter = Limiter(Database(settings.database_url))
        self._senders = [
            SenderThread(
                number,
                Place(
                    settings,
                    tasks,
                    policy,
                    Sender(settings, tasks, clients, late_answers),
                    self._watch.begin,
                    limiter,
                ),
                self._work,
                self._results,
            )
            for number in range(settings.concurrency)
        ]
        recorder = ResultRecorder(completing, settings.backoff_scale)
        self._completer = Completer(recorder, completing, completing_broker, state, policy, self._results)

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads():
            thread.start()

    def all_alive(self) -> bool:
        """Return whether all threads are running."""
        return all(thread.is_alive() for thread in self._threads())

    def has_finished(self) -> bool:
        """Return whether only the Fetcher has ended, normally: there are no more jobs to take."""
        return self._fetcher.has_finished and all(
            thread.is_alive() for thread in (*self._senders, self._watch, self._completer)
        )

    def wait(self, seconds: float) -> None:
        """Wait for this long or until the Fetcher ends, then close idle connections to the mail server."""
        self._fetcher.join(seconds)
        self._mailer.close_idle()

    def has_stuck_thread(self) -> bool:
        """Return whether a thread has worked on a message for longer than any lease can explain.

        The Completer runs only this project's own statements. If it hangs too, PostgreSQL is the cause (a COMMIT that
        waits for a standby, say), and a restart would only lose the results that it has to record.
        """
        fetcher_hangs = self._hangs(self._fetcher) and not self._hangs(self._completer)
        return fetcher_hangs or any(map(self._hangs, self._senders))

    def has_lost_places(self) -> bool:
        """Return whether half of the places have a thread that works for longer than it may, and does not end."""
        return self._state.places_lost * 2 >= len(self._senders)

    def finish_tasks(self, has_to_stop: Callable[[], bool]) -> None:
        """Take no more jobs and wait for the tasks that run, up to their time or until the worker has to stop."""
        self._state.stop()
        while self._watch.is_anything_running() and not has_to_stop():
            time.sleep(_RETRY_SECONDS)

    def shutdown(self) -> bool:
        """Take no more jobs and finish the messages in hand. Return False if a thread hangs.

        A message in hand gets the time of a send's deadline, and its outcome a few seconds more to be recorded. A
        message whose handler takes longer is released.
        """
        self._shutdown_by = monotonic() + self._settings.send_deadline_seconds + self._timings.grace_seconds
        self._state.stop()
        self._join(self._fetcher)
        self._work.close()
        for sender in self._senders:
            if sender not in self._watch.lost_threads():
                self._join(sender)
        self._watch.stop()
        self._watch.join(self._timings.grace_seconds)
        self._shutdown_by = max(self._shutdown_by, monotonic() + self._timings.grace_seconds)
        self._results.put(None)
        self._join(self._completer)
        return not any(thread.is_alive() for thread in self._threads())

    def _threads(self) -> list[_Thread]:
        return [self._fetcher, *self._senders, self._watch, self._completer]

    def _join(self, thread: _WorkingThread) -> None:
        if not self._hangs(thread):
            thread.join(max(0.0, (self._shutdown_by or 0.0) - monotonic()))

    def _hangs(self, thread: _WorkingThread) -> bool:
        since = thread.busy_since
        longest = self._settings.run_lease_seconds + self._timings.grace_seconds
        return since is not None and monotonic() - since > longest

    def _deadline_passed(self) -> bool:
        """Return whether a worker that shuts down has to stop trying to reach PostgreSQL, to log that it failed."""
        return self._shutdown_by is not None and monotonic() >= self._shutdown_by - _TIME_TO_LOG_SECONDS

    def _sleep(self, seconds: float) -> None:
        if self._state.stopping.wait(seconds):
            time.sleep(min(seconds, _RETRY_SECONDS))  # shutting down, but an outcome still has to be recorded
