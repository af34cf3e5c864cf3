"""Logging in: whatever the mechanism's case, whatever characters a password has; and how we introduce ourselves."""

import base64
import hmac
from collections.abc import Callable

import pytest

from consumer.model.outcomes import Accepted
from tests.consumer.mail.smtp.sending import MAIL, Open, lease, outage
from tests.servers.scripted_mail_server import Answer, ScriptedMailServer, Session

USER, PASSWORD = "m\u00e4x", "p\u00e4ss w\u00f6rd\u20ac"
REFUSED = "the mail server refuses our login (SMTP_URL)"


def decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()


def check(session: Session) -> str:
    """Take PLAIN in one line."""
    mechanism, _, response = session.heard[-1].partition(" ")[2].partition(" ")
    return "235 OK" if (mechanism, decoded(response)) == ("PLAIN", f"\0{USER}\0{PASSWORD}") else "535 no"


@pytest.mark.parametrize("offer", ["AUTH PLAIN", "auth login plain", "AUTH=PLAIN", "Auth XOAUTH2 Plain"])
def test_a_password_with_an_umlaut_is_utf_8_and_case_means_nothing(mailer: Open, offer: str) -> None:
    with ScriptedMailServer({"EHLO": f"250-scripted\n250 {offer}", "AUTH": check}) as server:
        outcome = mailer(server.port, login=(USER, PASSWORD)).send(MAIL, lease())

    assert outcome == Accepted()


def test_login_is_spoken_step_by_step(mailer: Open) -> None:
    answers: dict[str, Answer] = {
        "EHLO": "250-scripted\n250 auth login",
        "AUTH": "334 VXNlcm5hbWU6",
        base64.b64encode(USER.encode()).decode().upper(): "334 UGFzc3dvcmQ6",
        base64.b64encode(PASSWORD.encode()).decode().upper(): "235 OK",
    }
    with ScriptedMailServer(answers) as server:
        outcome = mailer(server.port, login=(USER, PASSWORD)).send(MAIL, lease())

    assert outcome == Accepted()


def test_cram_md5_takes_every_password(mailer: Open) -> None:
    challenge = b"<1@scripted>"
    digest = hmac.new(PASSWORD.encode(), challenge, "md5").hexdigest()
    answers: dict[str, Answer] = {
        "EHLO": "250-scripted\n250 AUTH cram-md5 PLAIN",
        "AUTH": f"334 {base64.b64encode(challenge).decode()}",
        base64.b64encode(f"{USER} {digest}".encode()).decode().upper(): "235 OK",
    }
    with ScriptedMailServer(answers) as server:
        outcome = mailer(server.port, login=(USER, PASSWORD)).send(MAIL, lease())

    assert outcome == Accepted()


def test_a_mechanism_that_is_refused_is_followed_by_the_next(mailer: Open) -> None:
    def only_plain(session: Session) -> str:
        return check(session) if "PLAIN" in session.heard[-1] else "504 5.5.4 not this one"

    with ScriptedMailServer({"EHLO": "250-scripted\n250 AUTH PLAIN CRAM-MD5", "AUTH": only_plain}) as server:
        assert mailer(server.port, login=(USER, PASSWORD)).send(MAIL, lease()) == Accepted()


@pytest.mark.parametrize(
    ("offer", "cause"),
    [
        ("SIZE", "it offers no login"),
        ("AUTH gssapi XOAUTH2", "it offers GSSAPI, XOAUTH2 and we support CRAM-MD5, PLAIN, LOGIN"),
    ],
)
def test_where_no_mechanism_fits_the_outage_names_what_is_offered(mailer: Open, offer: str, cause: str) -> None:
    with ScriptedMailServer({"EHLO": f"250-scripted\n250 {offer}"}) as server:
        outcome = mailer(server.port, login=(USER, PASSWORD)).send(MAIL, lease())

    assert outcome == outage(REFUSED, server.port, cause)


@pytest.mark.parametrize(("answer", "is_busy"), [("535 5.7.8 no", False), ("454 4.7.0 too many logins", True)])
def test_a_refused_login_is_an_outage(mailer: Open, answer: str, is_busy: bool) -> None:  # noqa: FBT001
    with ScriptedMailServer({"EHLO": "250-scripted\n250 AUTH PLAIN", "AUTH": answer}) as server:
        outcome = mailer(server.port, login=(USER, PASSWORD)).send(MAIL, lease())

    assert outcome == outage(REFUSED, server.port, answer, is_busy=is_busy)


@pytest.mark.parametrize(
    "echo",
    [lambda line: line, lambda line: line[:20], lambda line: decoded(line.split()[-1]), lambda line: line.upper()],
)
def test_an_answer_that_repeats_the_login_is_kept_without_its_text(mailer: Open, echo: Callable[[str], str]) -> None:
    def refuse(session: Session) -> str:
        return f"535-5.7.8 no\n535 5.7.8 {echo(session.heard[-1])}"

    with ScriptedMailServer({"EHLO": "250-scripted\n250 AUTH PLAIN", "AUTH": refuse}) as server:
        outcome = mailer(server.port, login=(USER, PASSWORD)).send(MAIL, lease())

    assert outcome == outage(REFUSED, server.port, "535 5.7.8")


@pytest.mark.parametrize("secret", [USER, PASSWORD])
def test_a_step_of_a_login_that_is_repeated_is_not_kept(mailer: Open, secret: str) -> None:
    encoded = base64.b64encode(secret.encode()).decode()
    answers: dict[str, Answer] = {
        "EHLO": "250-scripted\n250 AUTH LOGIN",
        "AUTH": "334 VXNlcm5hbWU6",
        base64.b64encode(USER.encode()).decode().upper(): "334 UGFzc3dvcmQ6",
        encoded.upper(): f"535 {encoded}?",
    }
    with ScriptedMailServer(answers) as server:
        outcome = mailer(server.port, login=(USER, PASSWORD)).send(MAIL, lease())

    assert outcome == outage(REFUSED, server.port, "535")


def test_without_a_name_it_introduces_itself_by_its_address(mailer: Open) -> None:
    with ScriptedMailServer({}) as server:
        mailer(server.port, helo_name=None).send(MAIL, lease())

    assert server.said[0][0] == "ehlo [127.0.0.1]"
