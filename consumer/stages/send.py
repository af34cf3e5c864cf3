"""The send step: from a prepared message to the answer of its destination. Each kind of content has its own module."""

from consumer.mail.client import Mailer, MailTransport
from consumer.model.mail import Mail
from consumer.model.message import AttemptResult, PreparedMessage
from consumer.stages.sending.late_answers import LateAnswers
from consumer.stages.sending.mails import MailSender
from consumer.task.registry import TaskRegistry
from shared.settings.consumer import ConsumerSettings


def open_mailer(settings: ConsumerSettings, connections: int = 1) -> Mailer:
    """Return the client of the mail server. No connection is opened yet."""
    return Mailer(
        settings.smtp_server,
        step_seconds=settings.smtp_timeout_seconds,
        helo_name=settings.smtp_helo_name,
        connections=connections,
    )


class Sender:
    """Sends one prepared message at a time."""

    def __init__(
        self, settings: ConsumerSettings, tasks: TaskRegistry, mailer: MailTransport, late_answers: LateAnswers
    ) -> None:
        self._mails = MailSender(settings, tasks, mailer, late_answers)

    @property
    def busy_since(self) -> float | None:
        """When (monotonic) the message in hand was started under its present lease; None while it is renewed."""
        return self._mails.busy_since

    def send(self, prepared: PreparedMessage) -> AttemptResult:
        """Send the message at most once, and return the result."""
        match prepared.content:
            case Mail():
                return self._mails.send(prepared, prepared.content)

    def close(self) -> None:
        """Close idle connections."""
        self._mails.close()
