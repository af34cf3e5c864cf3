"""What says nothing about the mail is an outage."""

import pytest

from consumer.model.outcomes import Accepted, DestinationUnavailable
from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import free_port
from tests.consumer.mail.smtp.sending import MAIL, QUICK, Open, lease, outage
from tests.servers.scripted_mail_server import CONTENT, GREETING, HANG_UP, ScriptedMailServer


def test_a_login_that_makes_no_sense_is_an_outage(mailer: Open) -> None:
    answers = {"EHLO": "250-scripted\n250 AUTH CRAM-MD5", "AUTH": "334 abcde"}
    with ScriptedMailServer(answers) as server:
        outcome = mailer(server.port, login=("user", "password")).send(MAIL, lease())

    assert outcome == outage("the mail server refuses our login (SMTP_URL)", server.port, "its challenge is not base64")


def test_without_tls_nothing_is_read_that_tls_needs(mailer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl.create_default_context", lambda: pytest.fail("20 ms for nothing"))
    with ScriptedMailServer({}) as server:
        assert mailer(server.port).send(MAIL, lease()) == Accepted()


OUR_SENDER = "the mail server refuses our sender (MAIL_FROM)"


@pytest.mark.parametrize(
    ("fault", "reason", "cause", "known"),
    [
        ("greet-421", "cannot connect to the mail server", "421 fault switched on for greet", {"is_busy": True}),
        ("greet-554", "cannot connect to the mail server", "554 fault switched on for greet", {}),
        ("greet-hang", "cannot connect to the mail server", "no answer in time", {}),
        ("mail-421", OUR_SENDER, "421 fault switched on for mail", {}),
        ("mail-451", OUR_SENDER, "451 fault switched on for mail", {}),
        ("mail-550", OUR_SENDER, "550 fault switched on for mail", {}),
        ("mail-hang", "the mail server went away at MAIL FROM", "no answer in time", {}),
        (
            "rcpt-421",
            "the mail server takes no more for now and closes",
            "421 fault switched on for rcpt",
            {"after_mail_from": True, "is_busy": True},
        ),
        ("rcpt-hang", "the mail server went away at RCPT TO", "no answer in time", {"after_mail_from": True}),
        (
            "drop-before-data",
            "the mail server went away at RCPT TO",
            "it closed the connection",
            {"after_mail_from": True},
        ),
    ],
)
def test_what_says_nothing_about_the_mail_is_an_outage(
    mailbox: MailCatcher, mailer: Open, fault: str, reason: str, cause: str, known: dict[str, bool]
) -> None:
    mailbox.set_fault(fault)
    sender = mailer(mailbox.smtp_port, step_seconds=QUICK)

    assert sender.send(MAIL, lease(1.5)) == outage(reason, mailbox.smtp_port, cause, **known)
    assert mailbox.mails() == []
    mailbox.set_fault(None)
    assert sender.send(MAIL, lease()) == Accepted()


@pytest.mark.parametrize("answers", [{"EHLO": HANG_UP}, {"EHLO": "421 closing", "HELO": "421 closing"}])
def test_a_server_that_does_not_want_to_talk_is_an_outage(mailer: Open, answers: dict[str, str]) -> None:
    with ScriptedMailServer(answers) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert isinstance(outcome, DestinationUnavailable)
    assert (outcome.reason.partition(":")[0], outcome.after_mail_from) == (
        "the mail server refuses to talk",
        False,
    )


def test_garbage_for_a_greeting_is_an_outage(mailer: Open) -> None:
    with ScriptedMailServer({GREETING: "HTTP/1.1 400 Bad Request"}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert isinstance(outcome, DestinationUnavailable)
    assert not outcome.after_mail_from


def test_no_server_is_an_outage(mailer: Open) -> None:
    port = free_port()

    outcome = mailer(port).send(MAIL, lease())

    assert outcome == outage("cannot connect to the mail server", port, "Connection refused")


@pytest.mark.parametrize("host", ["mail.invalid", "mail..invalid", "x" * 64 + ".invalid", "m\u00e4il\u2024.invalid"])
def test_a_wrong_name_is_an_outage(mailer: Open, host: str) -> None:
    outcome = mailer(25, host=host).send(MAIL, lease(3.0))

    assert isinstance(outcome, DestinationUnavailable)
    assert outcome.reason.startswith(f"cannot connect to the mail server: {host}:25: ")
    assert not outcome.after_mail_from


@pytest.mark.parametrize("answer", ["553 5.1.7 bad sender", "550 5.1.8 sender's domain", "450 4.1.8 domain not found"])
@pytest.mark.parametrize("step", ["RCPT", "DATA", CONTENT])
def test_a_refusal_of_our_sender_is_an_outage_at_whichever_step(mailer: Open, step: str, answer: str) -> None:
    with ScriptedMailServer({step: answer}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert outcome == outage(OUR_SENDER, server.port, answer, after_mail_from=True, is_busy=answer.startswith("4"))
