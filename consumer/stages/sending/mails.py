"""Sends mails: from a prepared mail to the mail server's answer."""

from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from jinja2 import TemplateNotFound

from consumer.mail.client import Envelope, MailTransport
from consumer.mail.compose import compose
from consumer.mail.connection import Extend
from consumer.model.mail import Mail
from consumer.model.message import AttemptResult, ClaimedMessage, PreparedMessage, Recipient
from consumer.model.outcomes import Accepted, Failed, Outcome, Released, RenderFailed
from consumer.stages.recording.policy_outage import recipient_of
from consumer.stages.sending.late_answers import LateAnswer, LateAnswers
from consumer.task import Undeliverable
from consumer.task.registry import TaskRegistry
from shared.settings.consumer import ConsumerSettings
from shared.tracing.spans import tracing

_TOO_MANY_WAIT: Final = Released("too many mails already wait for a late answer of the mail server", is_delayed=True)


class MailSender:
    """Composes and sends one mail at a time, over connections shared with other senders."""

    def __init__(
        self, settings: ConsumerSettings, tasks: TaskRegistry, mailer: MailTransport, late_answers: LateAnswers
    ) -> None:
        self._mail_from = settings.mail_from
        self._templates_folder = settings.templates_folder
        self._tasks = tasks
        self._key = settings.secret_keys[0]
        self._mailer = mailer
        self._late_answers = late_answers
        self.busy_since: float | None = None
        """When (monotonic) the mail in hand was started under its present lease; None while that lease is renewed."""

    def send(self, prepared: PreparedMessage, mail: Mail) -> AttemptResult:
        """Send the mail at most once, and return the result.

        If an earlier attempt got no answer, this one may wait longer for it, under a lease that is renewed.
        """
        self.busy_since = monotonic()
        try:
            if not prepared.message.claim.met_silence:
                outcome = self._send_traced(prepared.message, mail, None)
                return AttemptResult(prepared.message, outcome, self._refused_recipient(mail, outcome))
            with self._late_answers.place(prepared.message) as late_answer:
                if late_answer is None:
                    return AttemptResult(prepared.message, _TOO_MANY_WAIT)
                outcome = self._send_traced(prepared.message, mail, partial(self._extend, late_answer))
                return AttemptResult(late_answer.message, outcome, self._refused_recipient(mail, outcome))
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

    def _refused_recipient(self, mail: Mail, outcome: Outcome) -> Recipient | None:
        """Return the recipient if the mail was refused by policy."""
        is_policy = isinstance(outcome, Failed) and outcome.policy_code is not None
        return recipient_of(mail.recipient, self._key) if is_policy else None

    def _send_traced(self, message: ClaimedMessage, mail: Mail, extend: Extend | None) -> Outcome:
        with tracing().span("send mail", "client", parent=message.span.traceparent) as span:
            outcome = self._compose_and_send(message, mail, extend)
            span.note("outbox.outcome", type(outcome).__name__)
            if not isinstance(outcome, Accepted):
                span.failed()
            return outcome

    def _compose_and_send(self, message: ClaimedMessage, mail: Mail, extend: Extend | None) -> Outcome:
        try:
            envelope = compose(mail, message.claim.uid, self._mail_from, self._template_folders(message.claim.task))
        except Undeliverable as exc:
            return RenderFailed(exc.reason, is_permanent=True)
        except TemplateNotFound as exc:
            return RenderFailed(f"there is no template {exc.name}")
        except MemoryError:
            return Released("the worker is out of memory", is_delayed=True)
        except Exception as exc:  # noqa: BLE001 - a bug in a template fails its message, not the worker
            return RenderFailed(f"{type(exc).__name__} while the mail was composed")
        return self._hand_over(envelope, message, extend)

    def _template_folders(self, task: str) -> tuple[Path, ...]:
        beside_task = self._tasks.folders.get(task, ())
        return beside_task if self._templates_folder is None else (self._templates_folder, *beside_task)

    def _hand_over(self, envelope: Envelope, message: ClaimedMessage, extend: Extend | None) -> Outcome:
        if monotonic() >= message.lease.begin_until:
            # A try that runs out of time would look like a mail server that does not answer.
            return Released("too little of the lease was left to send the mail")
        return self._mailer.send(envelope, message.lease, extend)
