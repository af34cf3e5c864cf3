"""Handing a mail to the mail server: one deadline for all of it, and a clear answer to "was it taken?".

smtplib's timeouts are for one read or write each, and a server that answers a byte at a time never runs into them. So
before each of them the socket's timeout is set to what is left of the deadline.
"""

import contextlib
import re
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from time import monotonic
from typing import Final

from consumer.lease import Lease
from consumer.outcomes import Accepted, Failed, LeaseOver, Outage, Outcome
from consumer.reply_codes import policy_code
from consumer.smtp_connection import SmtpConnection
from shared.settings import SmtpServer

_KEPT_SECONDS: Final = 30.0
"""A connection that was idle for longer is not trusted any more; servers close idle ones after minutes (RFC 5321)."""

_GOODBYE_SECONDS: Final = 1.0

_LEADING_DOT: Final = re.compile(rb"(?m)^\.")
"""RFC 5321, 4.5.2: a dot at the start of a line is doubled."""

_START_INPUT, _CLOSING, _PERMANENT = 354, 421, 500


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is handed in: the two addresses that the server sees, and the mail's bytes with CRLF line ends."""

    sender: str
    recipient: str
    content: bytes


class Mailer:
    """Sends mails one after the other over a connection that it keeps open. One thread may use it at a time."""

    def __init__(self, server: SmtpServer, *, step_seconds: float, helo_name: str) -> None:
        """Keep the address; nothing is opened yet.

        Args:
            server: where mail is handed in.
            step_seconds: the longest wait for one answer.
            helo_name: how we introduce ourselves; smtplib's default would ask the name service.

        """
        self._server = server
        self._step_seconds = step_seconds
        self._helo_name = helo_name
        self._connection: SmtpConnection | None = None
        self._used_at = 0.0

    def send(self, envelope: Envelope, lease: Lease) -> Outcome:
        """Send the mail before the lease's deadline and tell what came of it.

        Everything up to the last dot can be taken back: if it fails there, the mail was not taken, and what is neither
        yes nor no is an outage. From the last dot on, silence or garbage means that nobody knows.
        """
        try:
            outcome = self._send(envelope, lease)
        except _OutageError as exc:
            self.drop()
            return Outage(str(exc), reached=exc.reached)
        if isinstance(outcome, LeaseOver) or (isinstance(outcome, Failed) and outcome.maybe_accepted):
            self.drop()
        self._used_at = monotonic()
        return outcome

    def close(self) -> None:
        """Say goodbye without waiting for the answer."""
        if self._connection is not None:
            self._connection.until = monotonic() + _GOODBYE_SECONDS
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self._connection.putcmd("quit")
        self.drop()

    def drop(self) -> None:
        """Drop the connection at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, envelope: Envelope, lease: Lease) -> Outcome:
        connection = self._begin(envelope, lease.send_until)
        refusal = self._ask_for_the_mail(connection, envelope.recipient)
        if refusal is None:
            return self._hand_over(connection, envelope, lease)
        self._forget_sender()
        return refusal

    def _begin(self, envelope: Envelope, until: float) -> SmtpConnection:
        """Give a connection on which the server has taken the sender; a kept one that has gone stale is replaced."""
        if self._connection is not None and monotonic() - self._used_at < _KEPT_SECONDS:
            self._connection.until = until
            try:
                return self._offer_sender(self._connection, envelope)
            except _OutageError:
                self.drop()
        self.drop()
        self._connection = self._open(until)
        return self._offer_sender(self._connection, envelope)

    def _open(self, until: float) -> SmtpConnection:
        with _outage_if_it_fails("cannot connect to the mail server"):
            # Building the context takes 20 ms: it reads the system's authorities.
            tls_context = self._tls_context if self._server.security == "smtps" else None
            connection = SmtpConnection(self._server, tls_context, self._helo_name, self._step_seconds, until)
        try:
            self._greet(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        """Give the checks for the server's certificate: the system's authorities, the name in SMTP_URL."""
        return ssl.create_default_context()

    def _greet(self, connection: SmtpConnection) -> None:
        with _outage_if_it_fails("the mail server refuses to talk"):
            connection.ehlo_or_helo_if_needed()
        if self._server.security == "smtp+starttls":
            with _outage_if_it_fails("STARTTLS with the mail server failed"):
                connection.starttls(context=self._tls_context)
                connection.ehlo()
        if self._server.user is not None and self._server.password is not None:
            with _outage_if_it_fails("the mail server refuses our login (SMTP_URL)"):
                connection.login(self._server.user, self._server.password)

    @staticmethod
    def _offer_sender(connection: SmtpConnection, envelope: Envelope) -> SmtpConnection:
        """Name the sender; a server that takes several commands at once gets recipient and DATA in the same packet."""
        with _outage_if_it_fails("the mail server went away at MAIL FROM"):
            if connection.takes_several_commands:
                connection.send_together(envelope.sender, envelope.recipient)
                code, text = connection.getreply()
            else:
                code, text = connection.mail(envelope.sender)
        if not _agrees(code):
            reason = _scrubbed(code, text, envelope.sender)
            raise _OutageError(f"the mail server refuses our sender (MAIL_FROM): {reason}")
        return connection

    def _ask_for_the_mail(self, connection: SmtpConnection, recipient: str) -> Failed | None:
        """Name the recipient and ask to begin; None when the server wants to have the mail."""
        together = connection.takes_several_commands
        with _outage_if_it_fails("the mail server went away at RCPT TO", reached=True):
            code, text = connection.getreply() if together else connection.rcpt(recipient)
            if _agrees(code):
                code, text = connection.getreply() if together else connection.docmd("DATA")
                if code == _START_INPUT:
                    return None
            elif together:
                self.drop()  # DATA is said already, and a server may wait for a mail to nobody (RFC 2920, 3.1)
        reason = _scrubbed(code, text, recipient)
        if code == _CLOSING:
            raise _OutageError(f"the mail server is closing: {reason}", reached=True)
        if not _refuses(code):
            raise _OutageError(f"the mail server's answer makes no sense: {reason}", reached=True)
        return Failed(f"refused: {reason}", is_permanent=code >= _PERMANENT, policy_code=policy_code(code, text))

    def _forget_sender(self) -> None:
        """Make the connection ready for another mail. Servers that hang up on a refusal do not change the refusal."""
        if self._connection is None:
            return
        try:
            self._connection.rset()
        except (OSError, smtplib.SMTPException):
            self.drop()

    @staticmethod
    def _hand_over(connection: SmtpConnection, envelope: Envelope, lease: Lease) -> Outcome:
        """Send the content, look at the lease once more, and only then the dot that makes the server take it."""
        content = _LEADING_DOT.sub(b"..", envelope.content)
        if not content.endswith(b"\r\n"):
            content += b"\r\n"
        with _outage_if_it_fails("the mail server went away in the middle of the mail", reached=True):
            connection.send(content)
        if lease.is_over() or monotonic() >= lease.send_until:
            return LeaseOver()
        try:
            connection.send(b".\r\n")
            code, text = connection.getreply()
        except (OSError, smtplib.SMTPException) as exc:
            reason = f"no answer after the mail was sent ({type(exc).__name__})"
            return Failed(reason, maybe_accepted=True, is_unanswered=True)
        if _agrees(code):
            return Accepted()
        if not _refuses(code):
            return Failed(f"unexpected answer {code} after the mail was sent", maybe_accepted=True)
        reason = _scrubbed(code, text, envelope.recipient)
        return Failed(f"refused: {reason}", is_permanent=code >= _PERMANENT, policy_code=policy_code(code, text))


def _agrees(code: int) -> bool:
    """Tell a yes: 2yz, since a client goes by the first digit of a code that it does not know (RFC 5321, 4.2)."""
    return 200 <= code < 300  # noqa: PLR2004 - the RFC's own numbers


def _refuses(code: int) -> bool:
    """Tell a refusal (RFC 5321, 4.2.1: 4yz and 5yz) from what is no answer here; smtplib gives -1 for garbage."""
    return 400 <= code < 600  # noqa: PLR2004 - the RFC's own numbers


class _OutageError(Exception):
    """The mail server cannot be used; nothing was taken."""

    def __init__(self, reason: str, *, reached: bool = False) -> None:
        super().__init__(reason)
        self.reached = reached


@contextlib.contextmanager
def _outage_if_it_fails(what: str, *, reached: bool = False) -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPResponseException as exc:
        raise _OutageError(f"{what}: {_scrubbed(exc.smtp_code, exc.smtp_error)}", reached=reached) from exc
    # ValueError: a host, user or password that is not ASCII, a challenge that is not base64, a Python without MD5.
    except (OSError, smtplib.SMTPException, ValueError) as exc:
        raise _OutageError(f"{what} ({type(exc).__name__})", reached=reached) from exc


_ADDRESS = re.compile(r"[^\s<>\"'(),:;]+@[^\s<>\"'(),:;]+")


def _scrubbed(code: int, text: bytes | str, address: str = "") -> str:
    """Give the server's answer without addresses: servers like to repeat the recipient, whole or its local part."""
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for part in filter(None, (address, address.partition("@")[0])):
        words = re.sub(rf"(?i)(?<![\w.+-]){re.escape(part)}(?![\w+-]|\.\w)", "[address]", words)
    words = _ADDRESS.sub("[address]", words)
    printable = "".join(char if char.isprintable() else " " for char in words)
    return f"{code} {' '.join(printable.split())}"[:200]
