"""The mail server: whether it greets, speaks TLS and takes the password. No mail is sent."""

import smtplib
import ssl
from typing import Final

from outbox_relay.doctor.findings import Finding, fault, ok
from shared.settings import SmtpServer

_CHECK: Final = "mail server"
_STEP_SECONDS: Final = 5.0


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
        return fault(_CHECK, f"it refuses the user or the password ({exc.smtp_code})", "mend SMTP_URL")
    except (smtplib.SMTPException, ssl.SSLError, OSError, ValueError) as exc:  # ValueError: a host that is no name
        # The text may hold an address of somebody.
        return fault(_CHECK, f"it cannot be used: {type(exc).__name__}", "start the mail server, or mend SMTP_URL")
    return ok(_CHECK, f"it greets ({server.security})")


def _connected(server: SmtpServer) -> smtplib.SMTP:
    if server.security == "smtps":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(server.host, server.port, timeout=_STEP_SECONDS, context=context)
    return smtplib.SMTP(server.host, server.port, timeout=_STEP_SECONDS)
