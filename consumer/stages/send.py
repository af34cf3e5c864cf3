"""The send step: from a prepared message to the answer of its destination. Each kind of content has its own module."""

from dataclasses import dataclass

from consumer.mail.client import Mailer, MailTransport
from consumer.model.mail import Mail
from consumer.model.message import AttemptResult, PreparedMessage
from consumer.model.webhook import Webhook
from consumer.stages.sending.late_answers import LateAnswers
from consumer.stages.sending.mails import MailSender
from consumer.stages.sending.webhooks import WebhookSender
from consumer.task.registry import TaskRegistry
from consumer.webhooks.addresses import AllowedAddresses
from consumer.webhooks.client import WebhookClient, WebhookTransport
from shared.settings.consumer import ConsumerSettings


def open_mailer(settings: ConsumerSettings, connections: int = 1) -> Mailer:
    """Return the client of the mail server. No connection is opened yet."""
    return Mailer(
        settings.smtp_server,
        step_seconds=settings.smtp_timeout_seconds,
        helo_name=settings.smtp_helo_name,
        connections=connections,
    )


def open_webhook_client(settings: ConsumerSettings) -> WebhookClient:
    """Return the client of webhook endpoints."""
    return WebhookClient(AllowedAddresses(settings.webhook_networks))


@dataclass(frozen=True, slots=True)
class Clients:
    """What sends: one for each kind of content, shared by all senders of a process.

    Attributes:
        mails: the client of the mail server.
        webhooks: the client of webhook endpoints.

    """

    mails: MailTransport
    webhooks: WebhookTransport


class Sender:
    """Sends one prepared message at a time."""

    def __init__(
        self, settings: ConsumerSettings, tasks: TaskRegistry, clients: Clients, late_answers: LateAnswers
    ) -> None:
        self._mails = MailSender(settings, tasks, clients.mails, late_answers)
        self._webhooks = WebhookSender(settings.database_url, clients.webhooks)

    @property
    def busy_since(self) -> float | None:
        """When (monotonic) the message in hand was started under its present lease; None while it is renewed."""
        return self._mails.busy_since if self._webhooks.busy_since is None else self._webhooks.busy_since

    def send(self, prepared: PreparedMessage) -> AttemptResult:
        """Send the message at most once, and return the result."""
        match prepared.content:
            case Mail():
                return self._mails.send(prepared, prepared.content)
            case Webhook():
                return self._webhooks.send(prepared, prepared.content)

    def close(self) -> None:
        """Close idle connections."""
        self._mails.close()
