"""The threads of an OutboxWorker together: one takes jobs, several send, one writes the outcomes."""

import time
from queue import SimpleQueue
from time import monotonic
from typing import Final

from consumer.model.message import Ended, Ready
from consumer.stages.claim import Claimer
from consumer.stages.database import Database
from consumer.stages.late_answers import LateAnswers
from consumer.stages.prepare import Preparer
from consumer.stages.record import Recorder
from consumer.stages.retry_policy import Patience
from consumer.stages.send import Sender, open_mailer
from consumer.threaded.fetcher import Intake
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.state import Control
from consumer.threaded.threads import SendingThread, WritingThread
from shared.settings.processes import ConsumerSettings

_Thread = Intake | SendingThread | WritingThread

_LEAVE_SECONDS: Final = 5.0
"""The time for an outcome's commit: added to a send's deadline when the worker leaves, and to a lease before a thread
counts as stuck."""

_LAST_WORDS_SECONDS: Final = 1.0

_NAP_SECONDS: Final = 0.5


class Team:
    """Messages go from the intake to one of the senders, and from all of them to the writer."""

    def __init__(
        self,
        settings: ConsumerSettings,
        taking_broker: WorkerBroker,
        writing_broker: WorkerBroker,
        control: Control,
        *,
        burst: bool,
    ) -> None:
        """Hire, and begin nothing yet. Intake and writer have connections of their own to PostgreSQL and to Redis."""
        self._settings = settings
        self._control = control
        self._leave_by: float | None = None
        patience = Patience(self._sleep, self._must_leave, control.stopping.is_set)
        self._to_send: SimpleQueue[Ready | None] = SimpleQueue()
        self._to_write: SimpleQueue[Ended | None] = SimpleQueue()
        taking, writing = Database(settings.database_url), Database(settings.database_url)
        self._intake = Intake(
            taking_broker,
            control,
            taking,
            Claimer(taking, settings.run_lease_seconds, patience),
            Preparer(taking, settings, patience),
            burst=burst,
            to_send=self._to_send,
            to_write=self._to_write,
        )
        self._mailer = open_mailer(settings, connections=settings.concurrency)
        late_answers = LateAnswers(
            settings.database_url,
            senders=lambda: min(settings.concurrency, self._mailer.connection_limit),
            is_leaving=control.stopping.is_set,
        )
        self._senders = [
            SendingThread(number, Sender(settings, self._mailer, late_answers), self._to_send, self._to_write)
            for number in range(settings.concurrency)
        ]
        recorder = Recorder(writing, settings.backoff_scale)
        self._writer = WritingThread(recorder, writing, writing_broker, control, patience, self._to_write)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads():
            thread.start()

    def is_whole(self) -> bool:
        """Tell whether all threads are at work."""
        return all(thread.is_alive() for thread in self._threads())

    def ended_as_it_should(self) -> bool:
        """Tell whether no thread but the intake has ended, and it because there is no more to be taken."""
        return self._intake.has_finished and all(thread.is_alive() for thread in (*self._senders, self._writer))

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until the intake ends; idle connections to the mail server are closed."""
        self._intake.join(seconds)
        self._mailer.close_idle()

    def is_stuck(self) -> bool:
        """Tell whether a thread handles a message for longer than any lease can explain.

        The writer runs nothing but our own statements. When it stands as well, it is PostgreSQL that does not go on (a
        commit that waits for a standby, say), and starting anew would only forget what it has to write.
        """
        intake = self._hangs(self._intake) and not self._hangs(self._writer)
        return intake or any(map(self._hangs, self._senders))

    def leave(self) -> bool:
        """Take no further job and finish what is in hand; false when a thread hangs.

        A message in hand gets the time of a send's deadline, and its outcome some seconds more to be written.
        """
        self._leave_by = monotonic() + self._settings.send_deadline_seconds + _LEAVE_SECONDS
        self._control.stop()
        self._join(self._intake)
        for _ in self._senders:
            self._to_send.put(None)
        for sender in self._senders:
            self._join(sender)
        self._leave_by = max(self._leave_by, monotonic() + _LEAVE_SECONDS)
        self._to_write.put(None)
        self._join(self._writer)
        return not any(thread.is_alive() for thread in self._threads())

    def _threads(self) -> list[_Thread]:
        return [self._intake, *self._senders, self._writer]

    def _join(self, thread: _Thread) -> None:
        if not self._hangs(thread):
            thread.join(max(0.0, (self._leave_by or 0.0) - monotonic()))

    def _hangs(self, thread: _Thread) -> bool:
        since = thread.busy_since
        return since is not None and monotonic() - since > self._settings.run_lease_seconds + _LEAVE_SECONDS

    def _must_leave(self) -> bool:
        """Tell whether a stopping worker has waited for PostgreSQL as long as it may, with time left to say so."""
        return self._leave_by is not None and monotonic() >= self._leave_by - _LAST_WORDS_SECONDS

    def _sleep(self, seconds: float) -> None:
        if self._control.stopping.wait(seconds):
            time.sleep(min(seconds, _NAP_SECONDS))  # stopping, but an outcome is still to be written
