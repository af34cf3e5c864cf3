"""TLS and login."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumer.model.outcomes import Accepted, DestinationUnavailable
from embedded.mail.catcher import MailCatcher
from embedded.mail.folder import MailFolder
from embedded.mail.server import MailServer, Security
from embedded.programs.ports import LOOPBACK, free_port
from shared.settings.smtp_server import SmtpSecurity
from tests.consumer.mail.smtp.sending import LOGIN, LONG, MAIL, QUICK, Open, lease, outage, takes
from tests.servers.certificates import write_certificate
from tests.servers.scripted_mail_server import ScriptedMailServer


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates that vouch for themselves, and their keys: of this machine, and of another."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, san in (("here", f"IP:{LOOPBACK}"), ("elsewhere", "DNS:mail.example.org"), ("unknown", f"IP:{LOOPBACK}")):
        write_certificate(folder, name, san)
    trusted = [(folder / f"{name}.pem").read_text() for name in ("here", "elsewhere")]
    (folder / "trusted.pem").write_text("".join(trusted))
    return folder


@dataclass(frozen=True)
class SecureServer:
    folder: MailFolder
    smtp_port: int


StartSecure = Callable[..., SecureServer]


@pytest.fixture
def start_secure(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SecureServer]]:
    """Start mail servers with TLS; the certificates `here` and `elsewhere` count as known to the system."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "trusted.pem"))
    started: list[MailServer] = []

    def start(security: SmtpSecurity, certificate: str = "here", login: tuple[str, str] | None = None) -> SecureServer:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / f"{certificate}.pem", certificates / f"{certificate}.key")
        tls = Security(tls_context=context, implicit_tls=security == "smtps", login=login)
        server, port = MailServer(MailFolder(tmp_path / "mail"), tls), free_port()
        server.start(port)
        started.append(server)
        return SecureServer(server.folder, port)

    yield start
    for each in started:
        each.stop()


both_kinds = pytest.mark.parametrize("security", ["smtp+starttls", "smtps"])


@both_kinds
@pytest.mark.parametrize("login", [None, LOGIN])
def test_a_mail_goes_over_tls(
    start_secure: StartSecure, mailer: Open, security: SmtpSecurity, login: tuple[str, str] | None
) -> None:
    server = start_secure(security, login=login)
    sender = mailer(server.smtp_port, security=security, login=login)

    outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert outcomes == [Accepted()] * 2
    assert [mail.raw for mail in server.folder.mails()] == [MAIL.content] * 2


@both_kinds
@pytest.mark.parametrize("certificate", ["elsewhere", "unknown"])
def test_a_wrong_certificate_is_an_outage(
    start_secure: StartSecure, mailer: Open, security: SmtpSecurity, certificate: str
) -> None:
    server = start_secure(security, certificate)

    outcome = mailer(server.smtp_port, security=security).send(MAIL, lease())

    what = "cannot connect to the mail server" if security == "smtps" else "STARTTLS with the mail server failed"
    assert isinstance(outcome, DestinationUnavailable)
    cause = f"{what}: {LOOPBACK}:{server.smtp_port}: TLS: certificate verify failed: "
    assert outcome.reason.startswith(cause)
    assert server.folder.mails() == []


@both_kinds
@pytest.mark.parametrize("password", ["wrong", "", "p\u00e4ssword"])
def test_a_wrong_password_is_an_outage(
    start_secure: StartSecure, mailer: Open, security: SmtpSecurity, password: str
) -> None:
    server = start_secure(security, login=LOGIN)

    outcome = mailer(server.smtp_port, security=security, login=(LOGIN[0], password)).send(MAIL, lease())

    assert isinstance(outcome, DestinationUnavailable)
    assert outcome.reason.startswith("the mail server refuses our login (SMTP_URL)")
    assert server.folder.mails() == []


def test_a_login_that_is_refused_for_now_is_an_outage(start_secure: StartSecure, mailer: Open) -> None:
    server = start_secure("smtps", login=LOGIN)
    server.folder.set_fault("auth-454")

    outcome = mailer(server.smtp_port, security="smtps", login=LOGIN).send(MAIL, lease())

    cause = "454 fault switched on for auth"
    assert outcome == outage("the mail server refuses our login (SMTP_URL)", server.smtp_port, cause, is_busy=True)


def test_a_login_that_the_server_does_not_offer_is_an_outage(mailbox: MailCatcher, mailer: Open) -> None:
    outcome = mailer(mailbox.smtp_port, login=LOGIN).send(MAIL, lease())

    refused = "the mail server refuses our login (SMTP_URL)"
    assert outcome == outage(refused, mailbox.smtp_port, "it offers no login")


def test_no_mail_goes_in_the_clear_where_tls_was_asked_for(mailbox: MailCatcher, mailer: Open) -> None:
    outcome = mailer(mailbox.smtp_port, security="smtp+starttls").send(MAIL, lease())

    cause = "it offers no STARTTLS, which SMTP_URL requires"
    assert outcome == outage("STARTTLS with the mail server failed", mailbox.smtp_port, cause)
    assert mailbox.mails() == []


def test_a_server_without_tls_where_tls_is_expected_is_an_outage(mailer: Open) -> None:
    with ScriptedMailServer({}) as server, takes(0, 5.0):
        outcome = mailer(server.port, security="smtps", step_seconds=QUICK).send(MAIL, lease())

    assert isinstance(outcome, DestinationUnavailable)


@both_kinds
def test_the_deadline_holds_over_tls(start_secure: StartSecure, mailer: Open, security: SmtpSecurity) -> None:
    server = start_secure(security)
    server.folder.set_fault("rcpt-hang")

    with takes(0.4, 5.0):
        outcome = mailer(server.smtp_port, security=security, step_seconds=LONG).send(MAIL, lease(0.75))

    gone = "the mail server went away at RCPT TO"
    assert outcome == outage(gone, server.smtp_port, "no answer in time", after_mail_from=True)
