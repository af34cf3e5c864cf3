"""Sending: from a prepared mail to the mail server's answer."""

from functools import partial
from time import monotonic
from typing import Final

from consumer.mail.client import Envelope, Mailer
from consumer.mail.compose import compose
from consumer.mail.connection import Extend
from consumer.model.message import Ended, Ready, Recipient
from consumer.model.outcomes import Accepted, Failed, NotBegun, NotMade, Outcome
from consumer.stages.late_answers import LateAnswer, LateAnswers
from consumer.stages.policy_outage import recipient_of
from consumer.task import UndeliverableError
from shared.settings.processes import ConsumerSettings
from shared.tracing.spans import tracing

_NO_PLACE_TO_WAIT: Final = NotBegun("as many mails wait for a late answer as may", is_its_own=True)


def open_mailer(settings: ConsumerSettings, connections: int = 1) -> Mailer:
    """Return what a worker hands its mails in with; nothing is opened yet."""
    return Mailer(
        settings.smtp_server,
        step_seconds=settings.smtp_timeout_seconds,
        helo_name=settings.smtp_helo_name,
        connections=connections,
    )


class Sender:
    """Composes and sends one mail at a time, over connections that are shared with other senders."""

    def __init__(self, settings: ConsumerSettings, mailer: Mailer, late_answers: LateAnswers) -> None:
        """Keep what every mail needs."""
        self._mail_from = settings.mail_from
        self._key = settings.secret_keys[0]
        self._mailer = mailer
        self._late_answers = late_answers
        self.busy_since: float | None = None
        """Since when (monotonic) a mail is in hand under the present lease; None also while that lease is renewed."""

    def send(self, ready: Ready) -> Ended:
        """Send the mail, at most once, and tell what came of it.

        Where an earlier attempt met silence, this one may wait for its answer under a lease that is renewed.
        """
        self.busy_since = monotonic()
        try:
            if not ready.held.claim.met_silence:
                outcome = self._send_traced(ready, None)
                return Ended(ready.held, outcome, ready.breaker, self._refused_by_policy(ready, outcome))
            with self._late_answers.place(ready.held) as late_answer:
                if late_answer is None:
                    return Ended(ready.held, _NO_PLACE_TO_WAIT, ready.breaker)
                outcome = self._send_traced(ready, partial(self._extend, late_answer))
                return Ended(late_answer.held, outcome, ready.breaker, self._refused_by_policy(ready, outcome))
        finally:
            self.busy_since = None

    def _extend(self, late_answer: LateAnswer) -> float | None:
        self.busy_since = None
        try:
            return late_answer.extend()
        finally:
            self.busy_since = monotonic()

    def _refused_by_policy(self, ready: Ready, outcome: Outcome) -> Recipient | None:
        is_policy = isinstance(outcome, Failed) and outcome.policy_code is not None
        return recipient_of(ready.mail.recipient, self._key) if is_policy else None

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._mailer.close()

    def _send_traced(self, ready: Ready, extend: Extend | None) -> Outcome:
        with tracing().span("send mail", "client", parent=ready.held.span.traceparent) as span:
            outcome = self._send(ready, extend)
            span.note("outbox.outcome", type(outcome).__name__)
            if not isinstance(outcome, Accepted):
                span.failed()
            return outcome

    def _send(self, ready: Ready, extend: Extend | None) -> Outcome:
        try:
            envelope = compose(ready.mail, ready.held.claim.uid, self._mail_from)
        except UndeliverableError as exc:
            return NotMade(exc.reason, is_permanent=True)
        except MemoryError:
            return NotBegun("this worker lacks memory", is_its_own=True)
        except Exception as exc:  # noqa: BLE001 - a bug in a template is this message's failure, not the worker's
            return NotMade(f"{type(exc).__name__} while the mail was composed")
        return self._hand_in(envelope, ready, extend)

    def _hand_in(self, envelope: Envelope, ready: Ready, extend: Extend | None) -> Outcome:
        if monotonic() >= ready.held.lease.begin_until:
            # Trying all the same would look like a mail server that does not answer.
            return NotBegun("too little time was left for the mail")
        return self._mailer.send(envelope, ready.held.lease, extend)
