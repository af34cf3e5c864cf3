"""Runs all steps for one message, in one thread: claim, prepare, send or handle, record. RQ's stock worker uses it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from consumer.model.message import ClaimedMessage
from consumer.model.results import Disposition, RecordedResult, StepResult, log_result
from consumer.stages.claim import Claimer
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy, database_pause
from consumer.stages.handle import RunningTask
from consumer.stages.limiter import Limiter
from consumer.stages.place import Place
from consumer.stages.prepare import Preparer
from consumer.stages.record import ResultRecorder
from consumer.stages.send import Clients, Sender, open_mailer, open_webhook_client
from consumer.stages.sending.late_answers import LateAnswers
from consumer.task.registry import TaskRegistry
from shared.settings.consumer import ConsumerSettings


class Processor:
    """Processes one message at a time."""

    def __init__(
        self,
        settings: ConsumerSettings,
        tasks: TaskRegistry,
        *,
        database: Database | None = None,
        clients: Clients | None = None,
        deadline_passed: Callable[[], bool] = lambda: False,
        shutting_down: Callable[[], bool] = lambda: False,
        limit_job: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        """Open nothing yet: connections are opened at their first use.

        Args:
            settings: the consumer's settings.
            tasks: the tasks that this consumer knows.
            database: the connection to PostgreSQL; by default one to the settings' database.
            clients: what sends; by default the clients of the settings' mail server and of webhooks.
            deadline_passed: called while PostgreSQL is unavailable: whether to stop trying.
            shutting_down: called before a lease is renewed to wait for a late answer: whether this process shuts down.
            limit_job: makes this process interrupt the work after so many seconds from the call.

        """
        self._limit_job = limit_job
        self._policy = RetryPolicy(deadline_passed=deadline_passed)
        self._database = database or Database(settings.database_url)
        self._claimer = Claimer(self._database, settings.run_lease_seconds, self._policy, tasks.known_tasks())
        self._preparer = Preparer(self._database, settings, tasks, self._policy)
        late_answers = LateAnswers(
            settings.database_url,
            senders=lambda: 1,
            shutting_down=shutting_down,
            after_renewal=lambda: limit_job(settings.run_lease_seconds),
        )
        clients = clients or Clients(open_mailer(settings), open_webhook_client(settings))
        sender = Sender(settings, tasks, clients, late_answers)
        limiter = Limiter(self._database)
        self._place = Place(settings, tasks, self._policy, sender, self._begin, limiter, database=self._database)
        self._recorder = ResultRecorder(self._database, settings.backoff_scale)

    def process(self, message_id: int) -> Disposition:
        """Claim the message, do its work, record the outcome, and log one line about it."""
        claim_result = self._claimer.claim({message_id: None})
        for each in claim_result.not_claimed:
            log_result(each.message_id, each.disposition, None, each.reason)
            return each.disposition
        step = self._preparer.prepare(claim_result.claimed)
        while step.work:
            step.add(self._place.carry_out(step.work.pop()))
        [recorded] = [*step.recorded, *self._record(step)]
        log_result(message_id, recorded.disposition, recorded.result.message, recorded.result.reason)
        return recorded.disposition

    def refuse_unsuitable(self) -> None:
        """Raise UnsuitableDatabaseError if the database can never be used. An outage raises nothing."""
        self._database.refuse_unsuitable()

    def close(self) -> None:
        """Close all connections."""
        self._place.close()
        self._database.close()

    @contextmanager
    def _begin(self, messages: Sequence[ClaimedMessage], seconds: float) -> Iterator[RunningTask]:
        """Limit a task's function: no lease is renewed here, and time has to be left for the acknowledgement."""
        lease = messages[0].lease
        running = _RunningTask(messages, min(monotonic() + seconds, lease.send_until))
        self._limit_job(running.until - monotonic())
        try:
            yield running
        finally:
            self._limit_job(lease.seconds)

    def _record(self, step: StepResult) -> list[RecordedResult]:
        return (self._recorder.record(step.results) or self._retry_record()) if step.results else []

    def _retry_record(self) -> list[RecordedResult]:
        """Retry until the outcome is written, or until the deadline has passed."""
        pause = database_pause()
        while not self._policy.deadline_passed():
            self._policy.sleep_before_record(pause.next())
            if recorded := self._recorder.retry():
                return recorded
        return self._recorder.give_up()


class _RunningTask:
    def __init__(self, messages: Sequence[ClaimedMessage], until: float) -> None:
        self.until = until
        self._messages = messages

    def end(self) -> Sequence[ClaimedMessage] | None:
        """Return the messages: nothing else ends the attempt meanwhile."""
        return self._messages
