"""A connection to the mail server: smtplib's, with one deadline for all that it does."""

import io
import smtplib
import socket
import ssl
import threading
from time import monotonic
from typing import Any

from shared.settings import SmtpServer


class SmtpConnection(smtplib.SMTP):
    """smtplib's client with one deadline for all that it does, be it many small steps.

    Attributes:
        until: the deadline (monotonic); each read and write may take what is left of it, and at most one step's time.

    """

    def __init__(
        self, server: SmtpServer, tls_context: ssl.SSLContext | None, helo_name: str, step_seconds: float, until: float
    ) -> None:
        """Connect, over TLS where there is a context for it, and read the greeting.

        Raises OSError or smtplib.SMTPException.
        """
        self._wrap = None if tls_context is None else tls_context.wrap_socket
        self._step_seconds = step_seconds
        self.until = until
        try:
            super().__init__(server.host, server.port, local_hostname=helo_name, timeout=step_seconds)
        except BaseException:
            self.close()
            raise

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Open the socket; called by smtplib's constructor, which reads the greeting after it."""
        plain = _connected(host, port, timeout, self.until)
        if self._wrap is None:
            return plain
        plain.settimeout(self.seconds_left())
        return self._wrap(plain, server_hostname=host)

    @property
    def takes_several_commands(self) -> bool:
        """Tell whether the server offers pipelining (RFC 2920)."""
        return self.has_extn("pipelining")

    def send_together(self, sender: str, recipient: str) -> None:
        """Send the commands up to DATA in one packet. Each has an answer that has to be read."""
        quoted = smtplib.quoteaddr(sender), smtplib.quoteaddr(recipient)
        self.send("MAIL FROM:{}\r\nRCPT TO:{}\r\nDATA\r\n".format(*quoted))

    def send(self, s: Any) -> None:  # noqa: ANN401 - the signature is smtplib's
        """Write, within the deadline."""
        if self.sock is not None:
            self.sock.settimeout(self.seconds_left())
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        """Read an answer, within the deadline."""
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(_TimedReader(self))
        return super().getreply()

    def seconds_left(self) -> float:
        """Give the time for one read or write. Raises TimeoutError when the deadline is over."""
        left = min(self._step_seconds, self.until - monotonic())
        if left <= 0:
            raise TimeoutError("the time for this mail is over")
        return left


class _TimedReader(io.RawIOBase):
    """What a connection reads; each piece of an answer may take what is left of the deadline, and no more."""

    def __init__(self, connection: SmtpConnection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the signature is io's
        sock = self._connection.sock
        if sock is None:
            return 0
        sock.settimeout(self._connection.seconds_left())
        return sock.recv_into(buffer)


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
