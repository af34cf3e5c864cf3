"""Composing mails: an HTML part and a plain-text twin, with the headers that an automatic mail owes its reader."""

from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from consumer.smtp import Envelope
from consumer.task import Mail, UndeliverableError


def compose(mail: Mail, message_id: int, sender: Address) -> Envelope:
    """Turn a mail into what the mail server gets.

    The Message-ID (RFC 5322, 3.6.4) comes from the outbox message's id: a second copy of the same message carries the
    same one, so that mailboxes can tell. Auto-Submitted (RFC 3834) keeps holiday notices away.

    Raises:
        UndeliverableError: the address or the name cannot stand in a header.

    """
    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = sender
        message["To"] = Address(display_name=mail.recipient_name, addr_spec=mail.recipient)
        message["Subject"] = mail.subject
    except (ValueError, IndexError, MessageError) as exc:
        raise UndeliverableError("the user's address or name cannot stand in a mail's header") from exc
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<outbox-{message_id}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    values = {**mail.values, "name": mail.recipient_name}
    message.set_content(_templates().get_template(f"{mail.template}.txt").render(values), cte="quoted-printable")
    html = _templates().get_template(f"{mail.template}.html").render(values)
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    try:
        content = message.as_bytes()
        mail.recipient.encode("ascii")
    except UnicodeError as exc:
        raise UndeliverableError("the user's address is not ASCII: its domain has to be in IDNA form") from exc
    return Envelope(sender=sender.addr_spec, recipient=mail.recipient, content=content)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("consumer", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
