"""The send step: from a prepared mail to the mail server's answer."""

from functools import partial
from time import monotonic
from typing import Final

from consumer.mail.client import Envelope, Mailer
from consumer.mail.compose import compose
from consumer.mail.connection import Extend
from consumer.model.message import AttemptResult, PreparedMail, Recipient
from consumer.model.outcomes import Accepted, Failed, Outcome, Released, RenderFailed
from consumer.stages.late_answers import LateAnswer, LateAnswers
from consumer.stages.policy_outage import recipient_of
from consumer.task import UndeliverableError
from shared.settings.consumer import ConsumerSettings
from shared.tracing.spans import tracing

_TOO_MANY_WAIT: Final = Released("too many mails already wait for a late answer of the mail server", is_delayed=True)


def open_mailer(settings: ConsumerSettings, connections: int = 1) -> Mailer:
    """Return the client of the mail server. No connection is opened yet."""
    return Mailer(
        settings.smtp_server,
        step_seconds=settings.smtp_timeout_seconds,
        helo_name=settings.smtp_helo_name,
        connections=connections,
    )


class Sender:
    """Composes and sends one mail at a time, over connections shared with other senders."""

    def __init__(self, settings: ConsumerSettings, mailer: Mailer, late_answers: LateAnswers) -> None:
        self._mail_from = settings.mail_from
        self._key = settings.secret_keys[0]
        self._mailer = mailer
        self._late_answers = late_answers
        self.busy_since: float | None = None
        """When (monotonic) the mail in hand was started under its present lease; None while that lease is renewed."""

    def send(self, prepared: PreparedMail) -> AttemptResult:
        """Send the mail at most once, and return the result.

        If an earlier attempt got no answer, this one may wait longer for it, under a lease that is renewed.
        """
        self.busy_since = monotonic()
        try:
            if not prepared.message.claim.met_silence:
                outcome = self._send_traced(prepared, None)
                recipient = self._refused_recipient(prepared, outcome)
                return AttemptResult(prepared.message, outcome, prepared.breaker, recipient)
            with self._late_answers.place(prepared.message) as late_answer:
                if late_answer is None:
                    return AttemptResult(prepared.message, _TOO_MANY_WAIT, prepared.breaker)
                outcome = self._send_traced(prepared, partial(self._extend, late_answer))
                recipient = self._refused_recipient(prepared, outcome)
                return AttemptResult(late_answer.message, outcome, prepared.breaker, recipient)
        finally:
            self.busy_since = None

    def close(self) -> None:
        """Close idle connections."""
        self._mailer.close()

    def _extend(self, late_answer: LateAnswer) -> float | None:
        self.busy_since = None
        try:
            return late_answer.extend()
        finally:
            self.busy_since = monotonic()

    def _refused_recipient(self, prepared: PreparedMail, outcome: Outcome) -> Recipient | None:
        """Return the recipient if the mail was refused by policy."""
        is_policy = isinstance(outcome, Failed) and outcome.policy_code is not None
        return recipient_of(prepared.mail.recipient, self._key) if is_policy else None

    def _send_traced(self, prepared: PreparedMail, extend: Extend | None) -> Outcome:
        with tracing().span("send mail", "client", parent=prepared.message.span.traceparent) as span:
            outcome = self._compose_and_send(prepared, extend)
            span.note("outbox.outcome", type(outcome).__name__)
            if not isinstance(outcome, Accepted):
                span.failed()
            return outcome

    def _compose_and_send(self, prepared: PreparedMail, extend: Extend | None) -> Outcome:
        try:
            envelope = compose(prepared.mail, prepared.message.claim.uid, self._mail_from)
        except UndeliverableError as exc:
            return RenderFailed(exc.reason, is_permanent=True)
        except MemoryError:
            return Released("the worker is out of memory", is_delayed=True)
        except Exception as exc:  # noqa: BLE001 - a bug in a template fails its message, not the worker
            return RenderFailed(f"{type(exc).__name__} while the mail was composed")
        return self._hand_over(envelope, prepared, extend)

    def _hand_over(self, envelope: Envelope, prepared: PreparedMail, extend: Extend | None) -> Outcome:
        if monotonic() >= prepared.message.lease.begin_until:
            # A try that runs out of time would look like a mail server that does not answer.
            return Released("too little of the lease was left to send the mail")
        return self._mailer.send(envelope, prepared.message.lease, extend)
