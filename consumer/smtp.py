"""Handing a mail to the mail server: one deadline for all of it, and a clear answer to "was it taken?".

smtplib's timeouts are for one step each, and a server that answers a byte at a time never runs into them. So a
watchdog cuts the connection at the deadline, whatever step it is in.
"""

import contextlib
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from time import monotonic
from typing import Any, Final

from consumer.lease import Lease
from consumer.outcomes import Accepted, Failed, LeaseOver, Outage, Outcome
from shared.settings import SmtpServer

_KEPT_SECONDS: Final = 30.0
"""A connection that was idle for longer is not trusted any more; servers close idle ones after minutes (RFC 5321)."""

_OK, _WILL_FORWARD, _START_INPUT, _CLOSING, _PERMANENT = 250, 251, 354, 421, 500


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
        self._connection: _Connection | None = None
        self._used_at = 0.0

    def send(self, envelope: Envelope, lease: Lease) -> Outcome:
        """Send the mail before the lease's deadline and tell what came of it.

        Everything up to the last dot can be taken back: if it fails there, the mail was not taken. From the last dot
        on, silence means that nobody knows.
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
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self._connection.putcmd("quit")
        self.drop()

    def drop(self) -> None:
        """Drop the connection at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, envelope: Envelope, lease: Lease) -> Outcome:
        connection = self._begin(envelope.sender, lease.send_until)
        with connection.cut_at(lease.send_until):
            refusal = self._offer(connection, envelope.recipient)
            if refusal is not None:
                self._forget_sender(connection)
                return refusal
            return self._hand_over(connection, envelope, lease)

    def _begin(self, sender: str, until: float) -> "_Connection":
        """Give a connection on which the server has taken the sender; a kept one that has gone stale is replaced."""
        if self._connection is not None and monotonic() - self._used_at < _KEPT_SECONDS:
            try:
                return self._offer_sender(self._connection, sender, until)
            except _OutageError:
                self.drop()
        self.drop()
        self._connection = self._open(until)
        return self._offer_sender(self._connection, sender, until)

    def _open(self, until: float) -> "_Connection":
        with _outage_if_it_fails("cannot connect to the mail server"):
            connection = _Connection(self._server, self._helo_name, self._step_seconds, until)
        try:
            with connection.cut_at(until):
                self._greet(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _greet(self, connection: "_Connection") -> None:
        with _outage_if_it_fails("the mail server refuses to talk"):
            connection.ehlo_or_helo_if_needed()
        if self._server.security == "smtp+starttls":
            with _outage_if_it_fails("STARTTLS with the mail server failed"):
                connection.starttls(context=connection.tls_context)
                connection.ehlo()
        if self._server.user is not None and self._server.password is not None:
            with _outage_if_it_fails("the mail server refuses our login (SMTP_URL)"):
                connection.login(self._server.user, self._server.password)

    @staticmethod
    def _offer_sender(connection: "_Connection", sender: str, until: float) -> "_Connection":
        with connection.cut_at(until), _outage_if_it_fails("the mail server went away at MAIL FROM"):
            code, text = connection.mail(sender)
        if code != _OK:
            raise _OutageError(f"the mail server refuses our sender (MAIL_FROM): {_scrubbed(code, text, sender)}")
        return connection

    @staticmethod
    def _offer(connection: "_Connection", recipient: str) -> Failed | None:
        """Name the recipient and ask to begin; None when the server wants to have the mail."""
        with _outage_if_it_fails("the mail server went away at RCPT TO", reached=True):
            code, text = connection.rcpt(recipient)
            if code in {_OK, _WILL_FORWARD}:
                code, text = connection.docmd("DATA")
                if code == _START_INPUT:
                    return None
            reason = _scrubbed(code, text, recipient)
            if code == _CLOSING:
                raise _OutageError(f"the mail server is closing: {reason}", reached=True)
        return Failed(f"refused: {reason}", is_permanent=code >= _PERMANENT)

    def _forget_sender(self, connection: "_Connection") -> None:
        """Make the connection ready for another mail. Servers that hang up on a refusal do not change the refusal."""
        try:
            connection.rset()
        except (OSError, smtplib.SMTPException):
            self.drop()

    def _hand_over(self, connection: "_Connection", envelope: Envelope, lease: Lease) -> Outcome:
        """Send the content, look at the lease once more, and only then the dot that makes the server take it."""
        content = re.sub(rb"(?m)^\.", b"..", envelope.content)  # RFC 5321, 4.5.2: transparency
        if not content.endswith(b"\r\n"):
            content += b"\r\n"
        with _outage_if_it_fails("the mail server went away in the middle of the mail", reached=True):
            connection.send(content)
        if lease.is_over():
            return LeaseOver()
        try:
            connection.send(b".\r\n")
            code, text = connection.getreply()
        except (OSError, smtplib.SMTPException) as exc:
            return Failed(f"no answer after the mail was sent ({type(exc).__name__})", maybe_accepted=True)
        if code == _OK:
            return Accepted()
        if not 400 <= code < 600:  # noqa: PLR2004 - RFC 5321, 4.2.1: 4yz and 5yz are refusals, nothing else is
            return Failed(f"unexpected answer {code} after the mail was sent", maybe_accepted=True)
        return Failed(f"refused: {_scrubbed(code, text, envelope.recipient)}", is_permanent=code >= _PERMANENT)


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
    except (OSError, smtplib.SMTPException, UnicodeError) as exc:  # a host, user or password that is not ASCII
        raise _OutageError(f"{what} ({type(exc).__name__})", reached=reached) from exc


class _Connection(smtplib.SMTP):
    """smtplib's client with a deadline for name look-up and connection, and a way to cut it from outside."""

    def __init__(self, server: SmtpServer, helo_name: str, step_seconds: float, until: float) -> None:
        self._security = server.security
        self._until = until
        self._handle: socket.socket | None = None
        try:
            with self.cut_at(until):
                super().__init__(server.host, server.port, local_hostname=helo_name, timeout=step_seconds)
        except BaseException:
            self.close()
            raise

    @cached_property
    def tls_context(self) -> ssl.SSLContext:
        """Give the checks for the server's certificate: the system's authorities, the name in SMTP_URL."""
        return ssl.create_default_context()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Open the socket; called by smtplib's constructor, which reads the greeting after it."""
        plain = _connected(host, port, timeout, self._until)
        # TLS takes the socket over and leaves a dead object behind; a duplicate reaches the connection all the same.
        self._handle = plain.dup()
        if monotonic() >= self._until:  # the watchdog may have looked before there was anything to cut
            plain.close()
            raise TimeoutError
        return self.tls_context.wrap_socket(plain, server_hostname=host) if self._security == "smtps" else plain

    @contextlib.contextmanager
    def cut_at(self, until: float) -> Iterator[None]:
        """Cut the connection if the block is not done by then: each step in it fails at once from there on."""
        watchdog = threading.Timer(max(0.0, until - monotonic()), self._cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def _cut(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        if self._handle is not None:
            self._handle.close()


def _connected(host: str, port: int, step_seconds: float, until: float) -> socket.socket:
    """Connect to the first address that answers. Raises OSError when none does in time."""
    failure: OSError = TimeoutError("no time left to connect")
    for family, kind, protocol, _, address in _addresses(host, port, min(step_seconds, until - monotonic())):
        remaining = min(step_seconds, until - monotonic())
        if remaining <= 0:
            break
        candidate = socket.socket(family, kind, protocol)
        candidate.settimeout(remaining)
        try:
            candidate.connect(address)
        except OSError as exc:
            candidate.close()
            failure = exc
        else:
            candidate.settimeout(step_seconds)
            # The last dot is a packet of its own. Nagle's algorithm would hold it until the server's delayed
            # acknowledgement of the content: 40 ms a mail.
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return candidate
    raise failure


def _addresses(host: str, port: int, seconds: float) -> list[tuple[Any, ...]]:
    """Look the name up with a time limit: getaddrinfo itself has none, so it gets a thread that may be left behind."""
    found: list[tuple[Any, ...]] = []
    errors: list[OSError | UnicodeError] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            errors.append(exc)

    thread = threading.Thread(target=look_up, daemon=True, name="name-look-up")
    thread.start()
    thread.join(max(0.0, seconds))
    if errors:
        raise errors[0]
    if not found:
        raise TimeoutError("the name look-up took too long")
    return found


_ADDRESS = re.compile(r"[^\s<>\"'(),:;]+@[^\s<>\"'(),:;]+")


def _scrubbed(code: int, text: bytes | str, address: str = "") -> str:
    """Give the server's answer without addresses: servers like to repeat the recipient, whole or its local part."""
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for part in filter(None, (address, address.partition("@")[0])):
        words = re.sub(rf"(?i)(?<![\w.+-]){re.escape(part)}(?![\w+-]|\.\w)", "[address]", words)
    words = _ADDRESS.sub("[address]", words)
    printable = "".join(char if char.isprintable() else " " for char in words)
    return f"{code} {' '.join(printable.split())}"[:200]
