"""The mail server: whether it greets, speaks TLS and takes the password. No mail is sent."""

import smtplib
import ssl
from typing import Final

from outbox_relay.doctor.findings import Finding, fault, ok
from shared.outage_causes import connection_cause
from shared.settings import SmtpServer

_CHECK: Final = "mail server"
_STEP_SECONDS: Final = 5.0
_SHOWN: Final = 200


def check_mail_server(server: SmtpServer) -> Finding:
    """Go as far as a mail would, up to its sender."""
    try:
        with _connected(server) as session:
            session.ehlo_or_helo_if_needed()
            if server.security == "smtp+starttls":
                session.starttls(context=ssl.create_default_context())
            if server.user is not None and server.password is not None:
                session.login(server.user, server.password)
    except smtplib.SMTPAuthenticationError as exc:
        return fault(_CHECK, f"it refuses the user or the password: {_answer(server, exc)}", "mend SMTP_URL")
    except smtplib.SMTPResponseException as exc:
        return fault(_CHECK, f"it cannot be used: {_answer(server, exc)}", "mend the mail server, or SMTP_URL")
    except (smtplib.SMTPException, ssl.SSLError, OSError, ValueError) as exc:  # ValueError: a host that is no name
        cause = connection_cause(exc, server.host, server.port)
        return fault(_CHECK, f"it cannot be used: {cause}", "start the mail server, or mend SMTP_URL")
    return ok(_CHECK, f"it greets ({server.security})")


def _connected(server: SmtpServer) -> smtplib.SMTP:
    if server.security == "smtps":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(server.host, server.port, timeout=_STEP_SECONDS, context=context)
    return smtplib.SMTP(server.host, server.port, timeout=_STEP_SECONDS)


def _answer(server: SmtpServer, exc: smtplib.SMTPResponseException) -> str:
    """Return where the server is and what it said. It was told our name and our login alone, and no address."""
    text = exc.smtp_error.decode("utf-8", "replace") if isinstance(exc.smtp_error, bytes) else str(exc.smtp_error)
    said = " ".join("".join(char if char.isprintable() else " " for char in text[:_SHOWN]).split())
    if server.password and server.password in said:
        said = ""
    return f"{server.host}:{server.port}: {exc.smtp_code} {said}".rstrip()
