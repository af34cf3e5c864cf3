"""Runs the four steps for one message, in one thread: claim, prepare, send, record. RQ's stock worker uses it."""

from collections.abc import Callable

from consumer.model.results import Disposition, RecordedResult, log_result
from consumer.stages.claim import Claimer
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy, database_pause
from consumer.stages.late_answers import LateAnswers
from consumer.stages.prepare import Preparer
from consumer.stages.record import ResultRecorder
from consumer.stages.send import Sender, open_mailer
from shared.settings.consumer import ConsumerSettings


class Processor:
    """Processes one message at a time."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        database: Database | None = None,
        deadline_passed: Callable[[], bool] = lambda: False,
        shutting_down: Callable[[], bool] = lambda: False,
        after_renewal: Callable[[], object] = lambda: None,
    ) -> None:
        """Open nothing yet: connections are opened at their first use.

        Args:
            settings: the consumer's settings.
            database: the connection to PostgreSQL; by default one to the settings' database.
            deadline_passed: called while PostgreSQL is unavailable: whether to stop trying.
            shutting_down: called before a lease is renewed to wait for a late answer: whether this process shuts down.
            after_renewal: called after each renewal.

        """
        self._policy = RetryPolicy(deadline_passed=deadline_passed)
        self._database = database or Database(settings.database_url)
        self._claimer = Claimer(self._database, settings.run_lease_seconds, self._policy)
        self._preparer = Preparer(self._database, settings, self._policy)
        late_answers = LateAnswers(
            settings.database_url, senders=lambda: 1, shutting_down=shutting_down, after_renewal=after_renewal
        )
        self._sender = Sender(settings, open_mailer(settings), late_answers)
        self._recorder = ResultRecorder(self._database, settings.backoff_scale)

    def process(self, message_id: int) -> Disposition:
        """Claim the message, prepare and send its mail, record the outcome, and log one line about it."""
        claim_result = self._claimer.claim({message_id: None})
        for each in claim_result.not_claimed:
            log_result(each.message_id, each.disposition, None, each.reason)
            return each.disposition
        prepared = self._preparer.prepare(claim_result.claimed)
        [result] = [*prepared.results, *(self._sender.send(mail) for mail in prepared.mails)]
        [recorded] = self._recorder.record([result]) or self._retry_record()
        log_result(message_id, recorded.disposition, result.message, result.reason)
        return recorded.disposition

    def refuse_unsuitable(self) -> None:
        """Raise UnsuitableDatabaseError if the database can never be used. An outage raises nothing."""
        self._database.refuse_unsuitable()

    def close(self) -> None:
        """Close all connections."""
        self._sender.close()
        self._database.close()

    def _retry_record(self) -> list[RecordedResult]:
        """Retry until the outcome is written, or until the deadline has passed."""
        pause = database_pause()
        while not self._policy.deadline_passed():
            self._policy.sleep_before_record(pause.next())
            if recorded := self._recorder.retry():
                return recorded
        return self._recorder.give_up()
