"""Composing mails: an HTML part and a plain-text twin, with the headers that an automatic mail owes its reader."""

import re
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from consumer.smtp import Envelope
from consumer.task import Mail, UndeliverableError

# What we set by hand is folded already: folding it again would decode it first (see _mailbox).
_POLICY: Final = SMTP.clone(refold_source="none")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9]+(?: [A-Za-z0-9]+)*")
_LONGEST_PLAIN_NAME: Final = 40


def compose(mail: Mail, message_id: int, sender: Address) -> Envelope:
    """Turn a mail into what the mail server gets.

    The Message-ID (RFC 5322, 3.6.4) comes from the outbox message's id: a second copy of the same message carries the
    same one, so that mailboxes can tell. Auto-Submitted (RFC 3834) keeps holiday notices away.

    Raises:
        UndeliverableError: the address or the name cannot stand in a header.

    """
    message = EmailMessage(policy=_POLICY)
    try:
        recipient = Address(display_name=mail.recipient_name, addr_spec=mail.recipient)
        message.set_raw("From", _mailbox(sender))
        message.set_raw("To", _mailbox(recipient))
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
        recipient.addr_spec.encode("ascii")
    except UnicodeError as exc:
        raise UndeliverableError("the user's address is not ASCII: its domain has to be in IDNA form") from exc
    except MessageError as exc:
        raise UndeliverableError("the mail cannot be written: a header would break in two") from exc
    return Envelope(sender=sender.addr_spec, recipient=recipient.addr_spec, content=content)


def _mailbox(address: Address) -> str:
    """Write name and address as they stand in a header, the name as encoded words (RFC 2047) unless it is plain.

    Left to the email package, a name that looks like an encoded word would be decoded, and a line end in it become a
    header of its own (CVE-2024-6923); a long name would lose its quotes, and a comma in it make two recipients of one.
    """
    name = address.display_name
    if not name.strip():
        return address.addr_spec
    if len(name) > _LONGEST_PLAIN_NAME or not _PLAIN_NAME.fullmatch(name):
        name = Header(name, "utf-8", header_name="To", maxlinelen=75).encode()
    return f"{name}\n <{address.addr_spec}>" if "\n" in name else f"{name} <{address.addr_spec}>"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("consumer", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
