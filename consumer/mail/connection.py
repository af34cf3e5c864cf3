"""A connection to the mail server, used for one mail after another, each with one deadline for all its steps.

It is smtplib's client. This module knows commands and replies; what a reply means for a mail is in transaction.py.
"""

import errno
import io
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from consumer.dialing import connected
from consumer.mail.reply_codes import START_MAIL_INPUT, is_agreement
from shared.settings.smtp_server import SmtpServer
from shared.smtp.login import address_literal
from shared.smtp.replies import read_reply

_NO_TIMEOUT: Final = float("inf")

_LEADING_DOT: Final = re.compile(rb"(?m)^\.")
"""RFC 5321, 4.5.2: a dot at the start of a line is doubled."""

Extend = Callable[[], float | None]
"""Called when the time for the reply to a mail is over; returns the new end (monotonic), or None to give up."""


class SmtpConnection(smtplib.SMTP):
    """smtplib's client with one deadline for all steps together.

    Every failure raises OSError with the cause, or smtplib.SMTPException.

    Attributes:
        until: the deadline (monotonic). Each read and write may take what is left of it, and at most one step's time;
            the greeting and the answer to a mail's content may take all that is left.
        mails: how many mails were begun on it.
        used_at: when (monotonic) it was last used.

    """

    def __init__(
        self,
        server: SmtpServer,
        tls_context: ssl.SSLContext | None,
        helo_name: str | None,
        step_seconds: float,
        until: float,
    ) -> None:
        """Connect, over TLS where there is a context for it, and read the greeting.

        Without a name, EHLO contains the local address of the connection (RFC 5321, section 4.1.1.1), which is always
        correct and needs no name service.

        Raises OSError or smtplib.SMTPException.
        """
        self._wrap = None if tls_context is None else tls_context.wrap_socket
        self._step_seconds = step_seconds
        self._longest_wait = step_seconds
        self._extend: Extend | None = None
        self._is_out_of_step = False
        self.until = until
        self.mails = 0
        self.used_at = monotonic()
        try:
            # smtplib asks the name service when it gets no name.
            super().__init__(server.host, server.port, local_hostname=helo_name or "localhost", timeout=step_seconds)
            if helo_name is None and self.sock is not None:
                self.local_hostname = address_literal(self.sock)
        except BaseException:
            self.close()
            raise
        self._longest_wait = step_seconds

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Open the socket; called by smtplib's constructor, which reads the greeting after it."""
        sock = connected(host, port, timeout, self.until)
        if self._wrap is not None:
            sock.settimeout(self.seconds_left())
            sock = self._wrap(sock, server_hostname=host)
        self._longest_wait = _NO_TIMEOUT
        return sock

    @property
    def is_usable(self) -> bool:
        """Return whether another command may be sent on it."""
        return self.sock is not None and not self._is_out_of_step

    def begin_mail(self, sender: str, recipient: str) -> tuple[int, bytes]:
        """Send MAIL FROM and return the reply.

        A server that offers pipelining (RFC 2920) gets RCPT TO and DATA in the same packet; request_content reads their
        replies.

        Both are bare addresses that were checked when the mail was composed. smtplib would parse them again, in 0.06
        ms a mail.
        """
        self.mails += 1
        if not self.has_extn("pipelining"):
            return self.mail(sender)
        self.send(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n")
        return self.getreply()

    def request_content(self, recipient: str) -> tuple[int, bytes] | None:
        """Send RCPT TO and DATA, and return the reply that refuses, or None if the server asks for the content.

        If it refuses the recipient after it got all commands in one packet, the connection is closed: DATA is sent
        already, and a server may wait for a mail to nobody (RFC 2920, section 3.1).
        """
        together = self.has_extn("pipelining")
        code, text = self.getreply() if together else self.rcpt(recipient)
        if not is_agreement(code):
            if together:
                self.close()
            return code, text
        code, text = self.getreply() if together else self.docmd("DATA")
        return None if code == START_MAIL_INPUT else (code, text)

    def send_content(self, content: bytes) -> None:
        """Send a mail's bytes, with CRLF line ends, without the dot that ends them."""
        content = _LEADING_DOT.sub(b"..", content)
        self.send(content if content.endswith(b"\r\n") else content + b"\r\n")

    def end_content(self, extend: Extend | None) -> tuple[int, bytes]:
        """Send the dot that ends a mail, and return the reply. It may take all the time left and what `extend` adds."""
        self.send(b".\r\n")
        self._longest_wait, self._extend = _NO_TIMEOUT, extend
        try:
            return self.getreply()
        finally:
            self._longest_wait, self._extend = self._step_seconds, None

    def forget_mail(self) -> None:
        """Send RSET, so that another mail can follow. Servers that hang up on a refusal do not change the refusal."""
        if self.is_usable:
            try:
                self.rset()
            except (OSError, smtplib.SMTPException):
                self.close()

    def send(self, s: Any) -> None:  # noqa: ANN401 - the signature is smtplib's
        """Write, within the deadline."""
        self._check_step()
        if self.sock is not None:
            self.sock.settimeout(self.seconds_left())
        try:
            super().send(s)
        except smtplib.SMTPServerDisconnected as exc:
            if isinstance(exc.__context__, OSError):
                raise exc.__context__ from None
            raise

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply within the deadline. One that is too long is cut, and nothing can be read or sent after it."""
        self._check_step()
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        if self.file is None:
            self.file = io.BufferedReader(_TimedReader(self))
        try:
            reply = read_reply(self.file)
        except OSError:
            self.close()
            raise
        if reply is None:
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
        self._is_out_of_step = reply.is_cut
        return reply.code, reply.text

    def seconds_left(self) -> float:
        """Return the time for one read or write. Raises TimeoutError when the deadline is over."""
        left = min(self._longest_wait, self.until - monotonic())
        if left <= 0:
            raise TimeoutError("the time for this mail is over")
        return left

    def receive_into(self, buffer: Any) -> int:  # noqa: ANN401 - the signature is io's
        """Read a piece of an answer. Raises TimeoutError when it does not come in time."""
        while self.sock is not None:
            try:
                self.sock.settimeout(self.seconds_left())
                return self.sock.recv_into(buffer)
            except TimeoutError:
                until = None if self._extend is None else self._extend()
                if until is None:
                    raise
                self.until = until
        return 0

    def _check_step(self) -> None:
        if self._is_out_of_step:
            raise OSError(errno.EMSGSIZE, "its answer was too long")


class _TimedReader(io.RawIOBase):
    """The raw stream behind a connection: each read may take what is left of the deadline."""

    def __init__(self, connection: SmtpConnection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the signature is io's
        return self._connection.receive_into(buffer)
