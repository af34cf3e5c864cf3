"""Checks the mail server: the greeting, TLS and the login. No mail is sent."""

import smtplib
import socket
import ssl
from typing import Final

from outbox_relay.doctor.findings import Finding, fault, ok
from shared.outage_causes import connection_cause
from shared.settings.smtp_server import SmtpServer
from shared.smtp.login import LoginRefusedError, address_literal, log_in
from shared.smtp.replies import NO_CODE, quoted, read_reply

_CHECK: Final = "mail server"
_STEP_SECONDS: Final = 5.0

_GREETING_SECONDS: Final = 30.0
"""Some servers delay their greeting. Workers wait for it as long."""


class _Session(smtplib.SMTP):
    """A client that waits longer for the greeting than for other answers, and limits the length of an answer."""

    def __init__(self, server: SmtpServer, helo_name: str | None) -> None:
        """Connect. Raises OSError or smtplib.SMTPException."""
        self._security = server.security
        # smtplib asks the name service when it gets no name.
        super().__init__(server.host, server.port, local_hostname=helo_name or "localhost", timeout=_STEP_SECONDS)
        if self.sock is not None:
            self.sock.settimeout(_STEP_SECONDS)
            self.local_hostname = helo_name or address_literal(self.sock)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Open the socket; called by smtplib's constructor, which reads the greeting after it."""
        sock = socket.create_connection((host, port), timeout)
        if self._security == "smtps":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        sock.settimeout(_GREETING_SECONDS)
        return sock

    def getreply(self) -> tuple[int, bytes]:
        """Read an answer; one that is too long ends the session."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        if self.file is None:
            self.file = self.sock.makefile("rb")
        reply = read_reply(self.file)
        if reply is None or reply.is_cut:
            self.close()
            raise smtplib.SMTPServerDisconnected("it closed the connection, or its answer has no end")
        return reply.code, reply.text


def check_mail_server(server: SmtpServer, helo_name: str | None) -> Finding:
    """Do all that precedes a mail: connect, TLS, login."""
    try:
        with _Session(server, helo_name) as session:
            session.ehlo_or_helo_if_needed()
            if server.security == "smtp+starttls":
                session.starttls(context=ssl.create_default_context())
                session.ehlo()
            if server.user is not None and server.password is not None:
                log_in(session, server.user, server.password)
    except LoginRefusedError as exc:
        return fault(
            _CHECK, f"it refuses the user or the password: {_answer(server, exc.code, exc.text)}", "fix SMTP_URL"
        )
    except smtplib.SMTPResponseException as exc:
        cause = _answer(server, exc.smtp_code, exc.smtp_error)
        return fault(_CHECK, f"it cannot be used: {cause}", "fix the mail server, SMTP_URL or SMTP_HELO_NAME")
    except (smtplib.SMTPException, OSError, ValueError) as exc:  # ValueError: a host that is not a valid name
        cause = connection_cause(exc, server.host, server.port)
        return fault(_CHECK, f"it cannot be used: {cause}", "start the mail server, or fix SMTP_URL")
    return ok(_CHECK, f"it greets ({server.security})")


def _answer(server: SmtpServer, code: int | None, text: bytes | str) -> str:
    """Return the server's address and answer. It was sent our name and login, and no address of a person."""
    words = text if isinstance(text, str) else text.decode("utf-8", "replace")
    if server.password and server.password in words:
        words = ""
    said = quoted(code or NO_CODE, words, server.user or "").rstrip()
    return f"{server.host}:{server.port}: {said}"
