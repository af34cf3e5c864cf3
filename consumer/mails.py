"""Composing mails: an HTML part and a plain-text twin, with the headers that an automatic mail owes its reader."""

import re
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address
from email.utils import format_datetime
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from consumer.mime import alternative, encoded_words
from consumer.smtp import Envelope
from consumer.task import Mail, UndeliverableError

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9]+(?: [A-Za-z0-9]+)*")
_LONGEST_PLAIN_NAME: Final = 40
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN_ADDRESS: Final = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")


def compose(mail: Mail, message_id: int, sender: Address) -> Envelope:
    """Turn a mail into what the mail server gets.

    The Message-ID (RFC 5322, 3.6.4) comes from the outbox message's id: a second copy of the same message carries the
    same one, so that mailboxes can tell. Auto-Submitted (RFC 3834) keeps holiday notices away.

    Raises:
        UndeliverableError: the address or the name cannot stand in a header.

    """
    recipient = _address(mail.recipient)
    try:
        headers = [
            ("From", _mailbox(sender.display_name, sender.addr_spec)),
            ("To", _mailbox(mail.recipient_name, recipient)),
            ("Subject", encoded_words("Subject", mail.subject)),
            ("Date", format_datetime(datetime.now(UTC))),
            ("Message-ID", f"<outbox-{message_id}@{sender.domain}>"),
            ("Auto-Submitted", "auto-generated"),
        ]
        values = {**mail.values, "name": mail.recipient_name}
        plain = _templates().get_template(f"{mail.template}.txt").render(values)
        html = _templates().get_template(f"{mail.template}.html").render(values)
        content = alternative(headers, plain, html)
    except (ValueError, MessageError) as exc:
        raise UndeliverableError("the user's address or name cannot stand in a mail's header") from exc
    return Envelope(sender=sender.addr_spec, recipient=recipient, content=content)


def _address(text: str) -> str:
    """Give the address in the form that a header and RCPT TO take. Raises UndeliverableError."""
    if _PLAIN_ADDRESS.fullmatch(text):
        return text  # nearly all are; parsing by the grammar takes longer than all the rest
    try:
        parsed = Address(addr_spec=text).addr_spec
    except (ValueError, IndexError, MessageError) as exc:
        raise UndeliverableError("the user's address or name cannot stand in a mail's header") from exc
    if not parsed.isascii():
        raise UndeliverableError("the user's address is not ASCII: its domain has to be in IDNA form")
    return parsed


def _mailbox(name: str, address: str) -> str:
    """Write name and address as they stand in a header, the name as encoded words (RFC 2047) unless it is plain.

    Raises ValueError for a name with control characters, which a row written in plain SQL may hold.

    Left to the email package, a name that looks like an encoded word would be decoded, and a line end in it become a
    header of its own (CVE-2024-6923); a long name would lose its quotes, and a comma in it make two recipients of one.
    """
    if not name.strip(" \t"):
        return address
    if _CONTROL.search(name):
        raise ValueError("a control character")
    if len(name) > _LONGEST_PLAIN_NAME or not _PLAIN_NAME.fullmatch(name):
        name = Header(name, "utf-8", header_name="To", maxlinelen=75).encode(linesep="\r\n")
    return f"{name}\r\n <{address}>" if "\n" in name else f"{name} <{address}>"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("consumer", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
