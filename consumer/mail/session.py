"""Open a session with the mail server: connect, read the greeting, start TLS, log in."""

import contextlib
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from consumer.mail.connection import SmtpConnection
from consumer.mail.reply_codes import is_agreement, is_temporary
from shared.outage_causes import connection_cause
from shared.settings.smtp_server import SmtpServer
from shared.smtp.login import LoginRefusedError, log_in
from shared.smtp.replies import quoted

_CONNECTION_ERRORS: Final = (OSError, smtplib.SMTPException, ValueError)
"""What a connection raises. ValueError: a host that is not ASCII, a Python without MD5."""


class ServerUnavailableError(Exception):
    """The mail server cannot be used; it accepted nothing.

    Attributes:
        is_busy: it refuses temporarily (4yz), and may serve others meanwhile.
        after_mail_from: it had accepted the sender already.

    """

    def __init__(self, reason: str, *, is_busy: bool = False, after_mail_from: bool = False) -> None:
        """Store the facts. The reason contains no address and no secret."""
        super().__init__(reason)
        self.is_busy = is_busy
        self.after_mail_from = after_mail_from


@dataclass(frozen=True)
class Sessions:
    """Opens sessions that are ready for a mail.

    Attributes:
        server: the mail server.
        step_seconds: the longest wait for one answer.
        helo_name: the name in EHLO; None for the local address of the connection.

    """

    server: SmtpServer
    step_seconds: float
    helo_name: str | None

    def open(self, until: float) -> SmtpConnection:
        """Open a session before the deadline (monotonic).

        Raises:
            ServerUnavailableError: it does not answer, or refuses us.
            OutOfResourcesError: this process has no socket or thread left, so the server was not contacted.

        """
        server = self.server
        with self.translated("cannot connect to the mail server"):
            # Building the context takes 20 ms, because it reads the system's certificate authorities.
            tls_context = self._tls_context if server.security == "smtps" else None
            connection = SmtpConnection(server, tls_context, self.helo_name, self.step_seconds, until)
        try:
            self._introduce(connection)
            if server.security == "smtp+starttls":
                self._start_tls(connection)
            if server.user is not None and server.password is not None:
                self._log_in(connection, server.user, server.password)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def translated(self, what: str, *, after_mail_from: bool = False) -> Iterator[None]:
        """Turn what a connection raises into a ServerUnavailableError that names the server and the cause."""
        try:
            yield
        except _CONNECTION_ERRORS as exc:
            raise self._unavailable(what, exc, after_mail_from=after_mail_from) from exc

    def refused(
        self, what: str, code: int, text: bytes | str, address: str = "", *, after_mail_from: bool = False
    ) -> ServerUnavailableError:
        """Return the error for a reply that refuses."""
        reason = f"{what}: {self.server.host}:{self.server.port}: {quoted(code, text, address)}"
        return ServerUnavailableError(reason, is_busy=is_temporary(code), after_mail_from=after_mail_from)

    def _unavailable(self, what: str, exc: Exception, *, after_mail_from: bool = False) -> ServerUnavailableError:
        """Return the error for what a connection raised."""
        if isinstance(exc, smtplib.SMTPResponseException):
            return self.refused(what, exc.smtp_code, exc.smtp_error)
        cause = connection_cause(exc, self.server.host, self.server.port)
        return ServerUnavailableError(f"{what}: {cause}", after_mail_from=after_mail_from)

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        """Return the TLS context. It checks the certificate by the system's authorities and the name in SMTP_URL."""
        return ssl.create_default_context()

    def _introduce(self, connection: SmtpConnection) -> None:
        what = "the mail server refuses to talk"
        with self.translated(what):
            code, text = connection.ehlo()
            if not is_agreement(code) and not is_temporary(code):
                code, text = connection.helo()
        if not is_agreement(code):
            raise self.refused(what, code, text)

    def _start_tls(self, connection: SmtpConnection) -> None:
        what = "STARTTLS with the mail server failed"
        if not connection.has_extn("starttls"):
            server = f"{self.server.host}:{self.server.port}"
            raise ServerUnavailableError(f"{what}: {server}: it offers no STARTTLS, which SMTP_URL requires")
        with self.translated(what):
            connection.starttls(context=self._tls_context)
            code, text = connection.ehlo()
        if not is_agreement(code):
            raise self.refused(what, code, text)

    def _log_in(self, connection: SmtpConnection, user: str, password: str) -> None:
        what = "the mail server refuses our login (SMTP_URL)"
        with self.translated(what):
            try:
                log_in(connection, user, password)
            except LoginRefusedError as exc:
                if exc.code is not None:
                    raise self.refused(what, exc.code, exc.text, user) from exc
                server = f"{self.server.host}:{self.server.port}"
                raise ServerUnavailableError(f"{what}: {server}: {exc}") from exc
