"""Compose mails: an HTML part, the same text as plain text, and the headers of an automatic mail."""

import re
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Final
from uuid import UUID

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined, select_autoescape

from consumer.mail.client import Envelope
from consumer.mail.mime import alternative
from consumer.task import Mail, Undeliverable
from shared.addresses import is_mailable, may_be_decoded

# Text that needs neither quotes nor encoded words in a header, for any mail program.
_PLAIN_WORDS: Final = re.compile(r"[A-Za-z0-9]+(?: [A-Za-z0-9]+)*")
_LONGEST_PLAIN: Final = 40
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REFUSAL: Final = "the user's address or name cannot be written in a mail's header"


def compose(mail: Mail, uid: UUID, sender: Address, template_folders: tuple[Path, ...] = ()) -> Envelope:
    """Return the envelope and the bytes of a mail.

    The Message-ID (RFC 5322, 3.6.4) is the outbox message's uid: a second copy of the same message carries the same,
    so that mailboxes recognise it, and no other message of any database does. Auto-Submitted (RFC 3834) suppresses
    holiday notices. There is no List-Unsubscribe: each mail answers something that its reader did, and nobody is on
    a list.

    Args:
        mail: the mail.
        uid: its message's.
        sender: the sender of every mail.
        template_folders: where its templates are looked for, before the consumer's own folder.

    Raises:
        Undeliverable: the address or the name cannot be written in a header.
        jinja2.TemplateNotFound: no folder has the template.

    """
    address = _address(mail.recipient)
    headers = [
        ("From", _sender(sender.display_name, sender.addr_spec)),
        ("To", _mailbox(mail.recipient_name, address, "To")),
        ("Subject", _words(mail.subject, "Subject")),
        ("Date", format_datetime(datetime.now(UTC))),
        ("Message-ID", f"<{uid}@{sender.domain}>"),
        ("Auto-Submitted", "auto-generated"),
    ]
    values = {**mail.values, "name": mail.recipient_name, "sender_name": sender.display_name or sender.domain}
    templates = _templates(template_folders)
    plain = templates.get_template(f"{mail.template}.txt").render(values)
    html = templates.get_template(f"{mail.template}.html").render(values)
    return Envelope(sender=sender.addr_spec, recipient=address, content=alternative(headers, plain, html))


def _address(given: str) -> str:
    """Return a checked address as it is written in a header and in the envelope.

    The API accepts only addresses of the first kind. A row that was written in SQL may hold another one that the email
    package can read.
    """
    if is_mailable(given):
        return given
    if may_be_decoded(given):
        raise Undeliverable(_REFUSAL)
    try:
        address = Address(addr_spec=given)
        spec = address.addr_spec
        spec.encode("ascii")
    except UnicodeError as exc:
        raise Undeliverable("the user's address is not ASCII: its domain has to be in IDNA form") from exc
    except (ValueError, IndexError, MessageError) as exc:
        raise Undeliverable(_REFUSAL) from exc
    if not (address.username and address.domain and spec.isprintable()):
        raise Undeliverable(_REFUSAL)
    return spec


@cache
def _sender(name: str, address: str) -> str:
    return _mailbox(name, address, "From")


def _mailbox(name: str, address: str, header: str) -> str:
    """Return a name and an address as they are written in a header."""
    if not name.strip(" \t"):
        return address
    words = _words(name, header)
    return f"{words}\r\n <{address}>" if "\r\n" in words else f"{words} <{address}>"


def _words(text: str, header: str) -> str:
    """Return a text as it is written in a header: as encoded words (RFC 2047) unless it is short and plain.

    An encoded text needs no quotes, even if it contains a comma or looks like an encoded word itself. A control
    character, which only a row that was written in SQL can contain, is refused.
    """
    if _CONTROL.search(text):
        raise Undeliverable(_REFUSAL)
    if len(text) <= _LONGEST_PLAIN and _PLAIN_WORDS.fullmatch(text):
        return text
    return Header(text, "utf-8", header_name=header, maxlinelen=75).encode(linesep="\r\n")


@cache
def _templates(folders: tuple[Path, ...]) -> Environment:
    return Environment(
        loader=ChoiceLoader([FileSystemLoader(folders), PackageLoader("consumer", "templates")]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Templates change with a deployment, so the files are not checked for each mail.
        auto_reload=False,
    )
