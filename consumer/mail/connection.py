"""A connection to the mail server: smtplib's, with one deadline for all that it does."""

import errno
import io
import smtplib
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from consumer.mail.dialing import connected
from shared.settings.processes import SmtpServer
from shared.smtp.login import address_literal
from shared.smtp.replies import read_reply

_NO_TIMEOUT: Final = float("inf")

Extend = Callable[[], float | None]
"""Asked when the time for the answer to a mail is over: until when (monotonic) to wait for it, or None to give up."""


class SmtpConnection(smtplib.SMTP):
    """smtplib's client with one deadline for all that it does, be it many small steps.

    What fails raises OSError with the cause, or smtplib.SMTPException.

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

        Without a name we introduce ourselves by our end's address (RFC 5321, section 4.1.1.1): it is always true, and
        asks no name service.

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

    @property
    def takes_several_commands(self) -> bool:
        """Return whether the server offers pipelining (RFC 2920)."""
        return self.has_extn("pipelining")

    def send_together(self, sender: str, recipient: str) -> None:
        """Send the commands up to DATA in one packet. Each has an answer that has to be read.

        Both are bare addresses, checked when the mail was composed: smtplib would parse them again, 0.06 ms a mail.
        """
        self.send(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n")

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
        """Read an answer, within the deadline. What is too long is cut, and then nothing else can be read or sent."""
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

    def read_final_answer(self, extend: Extend | None) -> tuple[int, bytes]:
        """Read the answer to a mail's content: it may take all the time that is left, and what `extend` adds."""
        self._longest_wait, self._extend = _NO_TIMEOUT, extend
        try:
            return self.getreply()
        finally:
            self._longest_wait, self._extend = self._step_seconds, None

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
    """What a connection reads; each piece of an answer may take what is left of the deadline, and no more."""

    def __init__(self, connection: SmtpConnection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the signature is io's
        return self._connection.receive_into(buffer)
