"""The folder of a mail catcher: one file per mail, and a file `fault` with the faults that are switched on."""

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as modern_policy
from functools import cached_property
from pathlib import Path

from embedded.mail.faults import parse_faults

FAULT_FILE = "fault"

_SUFFIX = ".eml"
_NAME = re.compile(r"(\d{20})-\d{6}")
_LINK = re.compile(r"https?://[^\s<>\"']+")
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class CaughtMail:
    """A mail as the server received it. The file stores the envelope in its first line."""

    path: Path
    sender: str
    recipients: tuple[str, ...]
    raw: bytes

    @property
    def name(self) -> str:
        """The file's name without its suffix. Names sort by arrival."""
        return self.path.stem

    @property
    def arrived_at(self) -> datetime:
        """When it was accepted."""
        return datetime.fromtimestamp(int(self.name.partition("-")[0]) / 1e9, UTC)

    @cached_property
    def message(self) -> EmailMessage:
        """The parsed mail."""
        return message_from_bytes(self.raw, policy=modern_policy)

    @property
    def subject(self) -> str:
        """The decoded subject."""
        return str(self.message.get("Subject", ""))

    @property
    def text(self) -> str:
        """The plain-text part, empty if there is none."""
        return self._part("plain")

    @property
    def html(self) -> str:
        """The HTML part, empty if there is none."""
        return self._part("html")

    @property
    def links(self) -> list[str]:
        """The URLs in the plain-text part, in their order."""
        return _LINK.findall(self.text)

    def _part(self, kind: str) -> str:
        part = self.message.get_body(preferencelist=(kind,))
        if part is None:
            return ""
        try:
            return str(part.get_content())
        except (LookupError, UnicodeError):
            # An unknown charset: decoded as far as possible.
            return bytes(part.get_payload(decode=True) or b"").decode("utf-8", "replace")


class MailFolder:
    """Reads a mail catcher's mails and switches its faults through its folder. The catcher may be another process."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if it is missing."""
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._seen: dict[str, CaughtMail] = {}
        self._last_time = 0
        self._counter = 0

    def set_fault(self, name: str | None) -> None:
        """Switch on a fault of embedded/mail/faults.py, or several, each on a line of its own; None for no fault."""
        fault_file = self.folder / FAULT_FILE
        if name is None:
            fault_file.unlink(missing_ok=True)
            return
        parse_faults(name)
        written = self.folder / f"{FAULT_FILE}.part"
        written.write_text(name)
        written.rename(fault_file)

    def mails(self) -> list[CaughtMail]:
        """Return all mails in the order of their arrival."""
        names = self.names()
        seen = {name: self._seen.get(name) or self._read(name) for name in names}
        self._seen = {name: mail for name, mail in seen.items() if mail is not None}
        return list(self._seen.values())

    def names(self) -> list[str]:
        """Return the mails' names in the order of their arrival."""
        return sorted(
            name.removesuffix(_SUFFIX)
            for name in os.listdir(self.folder)  # noqa: PTH208  # thousands of Path objects per call would be slow
            if name.endswith(_SUFFIX)
        )

    def mail(self, name: str) -> CaughtMail | None:
        """Return the mail of that name; None for any other text, including a path."""
        if not _NAME.fullmatch(name):
            return None
        return self._seen.get(name) or self._read(name)

    def wait_for(self, wanted: int | Callable[[CaughtMail], bool] = 1, timeout: float = 10.0) -> list[CaughtMail]:
        """Wait until there are this many mails, or one that the predicate accepts; return all, or the accepted ones."""
        deadline = time.monotonic() + timeout
        while True:
            mails = self.mails()
            found = mails if isinstance(wanted, int) else [mail for mail in mails if wanted(mail)]
            if len(found) >= (wanted if isinstance(wanted, int) else 1):
                return found
            if time.monotonic() > deadline:
                asked = f"{wanted} mail(s)" if isinstance(wanted, int) else "a certain mail"
                there = ", ".join(f"{mail.subject!r} to {list(mail.recipients)}" for mail in mails[-5:]) or "nothing"
                raise TimeoutError(
                    f"waited {timeout:g} s for {asked} in {self.folder}; there are {len(mails)}, the last: {there}"
                )
            time.sleep(_PAUSE_SECONDS)

    def clear(self) -> None:
        """Delete all mails."""
        for name in self.names():
            (self.folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)
        self._seen.clear()

    def keep(self, sender: str, recipients: Sequence[str], content: bytes) -> Path:
        """Write a mail. It appears under its name completely or not at all.

        It is not flushed to the disk, because the operating system's cache survives a kill -9 of this process.
        """
        # If the clock is set back, a mail must not sort before earlier ones.
        self._last_time = max(self._last_time, time.time_ns())
        self._counter += 1
        path = self.folder / f"{self._last_time:020d}-{self._counter % 1_000_000:06d}{_SUFFIX}"
        written = path.with_suffix(".part")
        envelope = json.dumps({"sender": sender, "recipients": list(recipients)}).encode()
        written.write_bytes(b"X-Envelope: %b\r\n%b" % (envelope, content))
        written.rename(path)
        return path

    def _read(self, name: str) -> CaughtMail | None:
        path = self.folder / f"{name}{_SUFFIX}"
        try:
            first, _, raw = path.read_bytes().partition(b"\r\n")
        except FileNotFoundError:
            return None
        envelope = json.loads(first.removeprefix(b"X-Envelope: "))
        return CaughtMail(path, envelope["sender"], tuple(envelope["recipients"]), raw)
