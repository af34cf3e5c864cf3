"""`doctor` meets the mail server as a worker does."""

import base64

import pytest

from embedded.programs.ports import LOOPBACK
from outbox_relay.doctor.findings import Severity
from outbox_relay.doctor.mail_check import check_mail_server
from shared.settings.smtp_server import SmtpServer
from tests.servers.scripted_mail_server import GREETING, Answer, ScriptedMailServer, Session

USER, PASSWORD = "m\u00e4x", "p\u00e4ssword"
RESPONSE = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()


def check(answers: dict[str, Answer], *, login: bool = False, helo_name: str | None = None) -> tuple[Severity, str]:
    with ScriptedMailServer(answers) as server:
        login_words = (USER, PASSWORD) if login else ()
        finding = check_mail_server(SmtpServer("smtp", LOOPBACK, server.port, *login_words), helo_name)
    return finding.severity, finding.message


def take_the_password(session: Session) -> str:
    return "235 OK" if session.heard[-1].split()[-1] == RESPONSE else "535 no"


def test_a_password_with_an_umlaut_and_an_offer_in_lower_case_are_fine() -> None:
    severity, _ = check({"EHLO": "250-scripted\n250 auth login plain", "AUTH": take_the_password}, login=True)

    assert severity is Severity.OK


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"EHLO": "250-scripted\n250 AUTH GSSAPI"}, "it offers GSSAPI and we support CRAM-MD5, PLAIN, LOGIN"),
        ({"EHLO": "250-scripted\n250 AUTH PLAIN", "AUTH": "535 5.7.8 no"}, "535 5.7.8 no"),
        ({"EHLO": "250-scripted\n250 AUTH PLAIN", "AUTH": f"535 no {PASSWORD}"}, ": 535"),
    ],
)
def test_a_refused_login_says_why_and_not_the_password(answers: dict[str, Answer], said: str) -> None:
    severity, message = check(answers, login=True)

    assert (severity, message.endswith(said), PASSWORD in message) == (Severity.FAULT, True, False)


def test_a_greeting_without_an_end_is_a_fault() -> None:
    severity, message = check({GREETING: "\n".join(["220-hello"] * 10_000)})

    assert (severity, "it cannot be used" in message) == (Severity.FAULT, True)


@pytest.mark.parametrize(("helo_name", "named"), [(None, "[127.0.0.1]"), ("mail.example.org", "mail.example.org")])
def test_it_introduces_itself_as_a_worker_does(helo_name: str | None, named: str) -> None:
    def expect(session: Session) -> str:
        return "250 scripted" if session.heard[-1].split()[-1] == named else "550 who?"

    assert check({"EHLO": expect, "HELO": "550 who?"}, helo_name=helo_name)[0] is Severity.OK
