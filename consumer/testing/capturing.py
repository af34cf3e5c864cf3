"""Clients of a mail server and of webhook endpoints that keep what they are to send."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Final

from consumer.mail.client import Envelope
from consumer.mail.connection import Extend
from consumer.model.lease import Lease
from consumer.model.outcomes import Accepted, DestinationUnavailable, Failed, Outcome
from consumer.task import RetryAfter, Unavailable, Undeliverable
from consumer.webhooks.client import Answer
from shared.webhooks.urls import WebhookUrl

_NO_CONTENT: Final = 204


@dataclass(frozen=True, slots=True)
class CapturedMail:
    """A mail as the mail server would have got it.

    Attributes:
        sender: the address in MAIL FROM.
        recipient: the address in RCPT TO.
        subject: the subject.
        text: the plain text.
        html: the HTML text.
        message: the whole mail with its headers.

    """

    sender: str
    recipient: str
    subject: str
    text: str
    html: str
    message: EmailMessage = field(repr=False)


@dataclass(frozen=True, slots=True)
class CapturedWebhook:
    """A webhook as its endpoint would have got it.

    Attributes:
        host: the name in its URL, with the port if that is not the usual one.
        path: path and query of its URL.
        headers: its headers, with the signature.
        body: its body.

    """

    host: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: str


SendMail = Callable[[CapturedMail], object]


class CapturingMailer:
    """Keeps each mail that it is to send. Its mail server accepts everything, unless `send` raises."""

    def __init__(self, send: SendMail | None) -> None:
        self._send = send
        self.mails: list[CapturedMail] = []

    def send(self, envelope: Envelope, _lease: Lease, _extend: Extend | None = None) -> Outcome:
        """Keep the mail, and return what the mail server has answered."""
        mail = _captured(envelope)
        try:
            if self._send is not None:
                self._send(mail)
        except Unavailable as exc:
            return DestinationUnavailable(exc.reason)
        except RetryAfter as exc:
            return Failed(exc.reason, retry_after_seconds=exc.seconds)
        except Undeliverable as exc:
            return Failed(exc.reason, is_permanent=True)
        except Exception as exc:  # noqa: BLE001 - as for a mail server that refuses one mail
            return Failed(f"{type(exc).__name__} while the mail was sent")
        self.mails.append(mail)
        return Accepted()

    def close(self) -> None:
        """Do nothing: no connection is open."""


class CapturingWebhookClient:
    """Keeps each webhook that it is to send. Every endpoint accepts everything."""

    def __init__(self) -> None:
        self.webhooks: list[CapturedWebhook] = []

    def post(
        self, url: WebhookUrl, body: bytes, headers: Mapping[str, str], *, begin_until: float, until: float
    ) -> Answer:
        """Keep the webhook, and return that it was accepted."""
        del begin_until, until
        self.webhooks.append(CapturedWebhook(url.host_header, url.target, dict(headers), body.decode()))
        return Answer(_NO_CONTENT)


def _captured(envelope: Envelope) -> CapturedMail:
    message = message_from_bytes(envelope.content, policy=default)
    return CapturedMail(
        sender=envelope.sender,
        recipient=envelope.recipient,
        subject=str(message["Subject"]),
        text=_part(message, "plain"),
        html=_part(message, "html"),
        message=message,
    )


def _part(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    return "" if part is None else str(part.get_content())
