"""Collect the mails that arrived, and the messages that the API logged as committed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from embedded.mail.folder import CaughtMail, MailFolder
from shared.links import is_authentic
from tests.chaos.checking.evidence import Copy
from tests.chaos.commands import SECRET_KEY

_MESSAGE_ID: Final = re.compile(r"<([0-9a-f-]{36})@[\w.-]+>")


def copies_of(folder: MailFolder, ids: Mapping[str, int]) -> list[Copy]:
    """Read every mail in the order of their arrival; `ids` are the messages by their uids."""
    return [_copy(mail, ids) for mail in folder.mails()]


def ids_in_log(log_file: Path) -> set[int]:
    """Read the ids of the messages that the API logged after their commit."""
    with log_file.open(errors="replace") as log:
        return {found for line in log if (found := _id_in(line)) is not None}


def _id_in(line: str) -> int | None:
    if '"user.signed_up"' not in line:
        return None
    try:
        return int(json.loads(line)["message_id"])
    except (ValueError, KeyError):
        return None  # a line that its process died at


def _copy(mail: CaughtMail, ids: Mapping[str, int]) -> Copy:
    found = _MESSAGE_ID.fullmatch(str(mail.message.get("Message-ID", "")).strip())
    recipient = mail.recipients[0]
    link = mail.links[0] if mail.links else ""
    return Copy(
        name=mail.name,
        message_id=ids.get(found[1]) if found else None,
        recipient=recipient,
        link=link,
        is_authentic=_is_ours(link, recipient),
        arrived_at=mail.arrived_at.timestamp(),
    )


def _is_ours(link: str, recipient: str) -> bool:
    """Return whether the link was signed for this address."""
    query = parse_qs(urlsplit(link).query)
    try:
        return is_authentic([SECRET_KEY], int(query["email_id"][0]), recipient, query["secret_code"][0])
    except (KeyError, ValueError):
        return False
