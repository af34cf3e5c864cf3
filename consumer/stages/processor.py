"""One message from its claim to its outcome, in one thread: what RQ's stock worker does in a process of its own."""

import time
from collections.abc import Callable

from consumer.model.results import Verdict, tell
from consumer.stages.claim import Claimer
from consumer.stages.database import Database
from consumer.stages.late_answers import LateAnswers
from consumer.stages.prepare import Preparer
from consumer.stages.record import Recorder
from consumer.stages.retry_policy import Patience, pauses
from consumer.stages.send import Sender, open_mailer
from shared.settings.processes import ConsumerSettings


class Processor:
    """Works on one message at a time."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        may_give_up: Callable[[], bool] = lambda: False,
        is_leaving: Callable[[], bool] = lambda: False,
        after_renewal: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep what every message needs; connections are opened at their first use.

        Args:
            settings: the consumer's settings.
            sleep: waits between two tries to reach PostgreSQL.
            may_give_up: asked while an outcome waits for PostgreSQL to come back: is this process told to leave?
            is_leaving: asked before a lease is renewed to wait for a late answer: is this process to leave soon?
            after_renewal: called when that was done.

        """
        self._patience = Patience(sleep, may_give_up)
        self._database = Database(settings.database_url)
        self._claimer = Claimer(self._database, settings.run_lease_seconds, self._patience)
        self._preparer = Preparer(self._database, settings, self._patience)
        late_answers = LateAnswers(
            settings.database_url, senders=lambda: 1, is_leaving=is_leaving, after_renewal=after_renewal
        )
        self._sender = Sender(settings, open_mailer(settings), late_answers)
        self._recorder = Recorder(self._database, settings.backoff_scale)

    def process(self, message_id: int) -> Verdict:
        """Claim the message, do what it asks for, and record the outcome: one log line says what became of it."""
        claimed = self._claimer.claim({message_id: None})
        for each in claimed.not_held:
            tell(each.message_id, each.verdict, None, each.reason)
            return each.verdict
        prepared = self._preparer.prepare(claimed.held)
        [ended] = [*prepared.ended, *(self._sender.send(ready) for ready in prepared.ready)]
        settled = self._recorder.record([ended])
        for pause in pauses():
            if settled or self._patience.may_give_up():
                break
            self._patience.pause(pause)
            settled = self._recorder.retry()
        [last] = settled or self._recorder.give_up()
        tell(message_id, last.verdict, ended.held, ended.reason)
        return last.verdict

    def refuse_unsuitable(self) -> None:
        """Raise UnsuitableDatabaseError where the database cannot be used whatever happens; an outage is none."""
        self._database.refuse_unsuitable()

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()
        self._database.close()
