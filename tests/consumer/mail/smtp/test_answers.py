"""What the server's answers mean for a mail, and silence in the place of the last one."""

from dataclasses import replace

import pytest

from consumer.model.outcomes import Accepted, DestinationUnavailable, Failed
from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK
from tests.consumer.mail.smtp.sending import LONG, MAIL, Answers, Open, both_manners, lease, outage, takes, unanswered
from tests.servers.scripted_mail_server import CONTENT, HANG_UP, PIPELINING, ScriptedMailServer


def test_an_accepted_mail_is_accepted(mailbox: MailCatcher, mailer: Open) -> None:
    assert mailer(mailbox.smtp_port).send(MAIL, lease()) == Accepted()

    [mail] = mailbox.mails()
    assert (mail.sender, mail.recipients, mail.raw) == (MAIL.sender, (MAIL.recipient,), MAIL.content)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("rcpt-450", Failed("refused: 450 fault switched on for rcpt")),
        ("rcpt-452", Failed("refused: 452 fault switched on for rcpt")),
        ("rcpt-550", Failed("refused: 550 fault switched on for rcpt", is_permanent=True)),
        ("rcpt-553", Failed("refused: 553 fault switched on for rcpt", is_permanent=True)),
        ("data-451", Failed("refused: 451 fault switched on for data")),
        ("data-421", Failed("refused: 421 fault switched on for data")),
        ("data-552", Failed("refused: 552 fault switched on for data", is_permanent=True)),
        ("data-554", Failed("refused: 554 fault switched on for data", is_permanent=True)),
    ],
)
def test_a_refusal_of_this_mail_is_its_failure(mailbox: MailCatcher, mailer: Open, fault: str, outcome: Failed) -> None:
    mailbox.set_fault(fault)

    assert mailer(mailbox.smtp_port).send(MAIL, lease()) == outcome
    assert mailbox.mails() == []


@both_manners
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("450 later", Failed("refused: 450 later")),
        ("554 no", Failed("refused: 554 no", is_permanent=True)),
    ],
)
def test_a_refusal_of_the_data_command_is_the_mails_failure(
    mailer: Open, manner: Answers, answer: str, outcome: Failed
) -> None:
    with ScriptedMailServer({**manner, "DATA": answer}) as server:
        assert mailer(server.port).send(MAIL, lease()) == outcome


@both_manners
@pytest.mark.parametrize(
    ("step", "answer", "shown"),
    [
        ("RCPT", "what?", "what?"),
        ("RCPT", "999 no", "999 no"),
        ("RCPT", "354 go on", "354 go on"),
        ("DATA", "<html>500", "<html>500"),
        ("DATA", "250 OK", "250 OK"),
    ],
)
def test_an_answer_before_the_mail_that_is_neither_yes_nor_no_is_an_outage(
    mailer: Open, manner: Answers, step: str, answer: str, shown: str
) -> None:
    with ScriptedMailServer({**manner, step: answer}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert outcomes == [outage("the mail server's answer is not valid", server.port, shown, after_mail_from=True)] * 2
    assert (len(server.said), server.contents) == (2, [])


@both_manners
@pytest.mark.parametrize("step", ["RCPT", "DATA"])
def test_a_refusal_stays_one_when_the_server_hangs_up_behind_it(mailer: Open, manner: Answers, step: str) -> None:
    with ScriptedMailServer({**manner, step: f"550 no {HANG_UP}"}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert outcomes == [Failed("refused: 550 no", is_permanent=True)] * 2


@both_manners
@pytest.mark.parametrize("step", ["RCPT", "DATA", CONTENT])
@pytest.mark.parametrize(
    ("answer", "policy_code"),
    [
        ("554 5.7.1 relay access denied", "5.7.1"),
        ("550-5.7.26 unauthenticated\n550 5.7.26 see our policy", "5.7.26"),
        ("550 5.1.1 no such user", None),
        ("550 relay access denied", None),
        ("554 5.3.2 not accepting mail", "5.3.2"),
        ("554 5.5.1 protocol error", "5.5.1"),
        ("552 5.2.2 mailbox full", None),
        ("550 5.7.1x", None),
        ("550 4.7.1 a class that contradicts the code", None),
    ],
)
def test_a_refusal_by_policy_names_its_code(
    mailer: Open, manner: Answers, step: str, answer: str, policy_code: str | None
) -> None:
    with ScriptedMailServer({**manner, step: answer}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert isinstance(outcome, Failed)
    assert (outcome.policy_code, outcome.maybe_accepted) == (policy_code, False)


def test_a_refusal_does_not_repeat_the_address(mailer: Open) -> None:
    with ScriptedMailServer({"RCPT": "550-5.1.1 <Alice@Example.com>: no\n550 user alice."}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    refusal = "refused: 550 5.1.1 <[address]>: no user [address]."
    assert outcome == Failed(refusal, is_permanent=True, is_about_recipient=True)


@both_manners
@pytest.mark.parametrize("answer", ["250-first\n250 second", "251 will forward"])
def test_a_recipient_may_be_accepted_in_other_words(mailer: Open, manner: Answers, answer: str) -> None:
    with ScriptedMailServer({**manner, "RCPT": answer}) as server:
        assert mailer(server.port).send(MAIL, lease()) == Accepted()


@both_manners
@pytest.mark.parametrize("command", ["MAIL", "RCPT", CONTENT])
def test_a_yes_with_an_unknown_number_is_a_yes(mailer: Open, manner: Answers, command: str) -> None:
    with ScriptedMailServer({**manner, command: "259 well then"}) as server:
        assert mailer(server.port).send(MAIL, lease()) == Accepted()


@both_manners
@pytest.mark.parametrize("answer", ["354 more", "what?", "999 no"])
def test_an_answer_that_is_none_may_mean_acceptance(mailer: Open, manner: Answers, answer: str) -> None:
    with ScriptedMailServer({**manner, CONTENT: answer}) as server:
        outcome = mailer(server.port).send(MAIL, lease())

    assert isinstance(outcome, Failed)
    assert (outcome.is_permanent, outcome.maybe_accepted) == (False, True)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"RCPT": "550 no"}, Failed("refused: 550 no", is_permanent=True)),
        ({"RCPT": "450 later", "DATA": "503 no recipient"}, Failed("refused: 450 later")),
        ({"RCPT": f"550 no {HANG_UP}"}, Failed("refused: 550 no", is_permanent=True)),
        (
            {"RCPT": "421 closing"},
            DestinationUnavailable(
                "the mail server takes no more for now and closes: {}: 421 closing", after_mail_from=True, is_busy=True
            ),
        ),
        (
            {"RCPT": HANG_UP},
            DestinationUnavailable(
                "the mail server went away at RCPT TO: {}: it closed the connection", after_mail_from=True
            ),
        ),
        (
            {"DATA": HANG_UP},
            DestinationUnavailable(
                "the mail server went away at RCPT TO: {}: it closed the connection", after_mail_from=True
            ),
        ),
        ({"MAIL": "550 no"}, DestinationUnavailable("the mail server refuses our sender (MAIL_FROM): {}: 550 no")),
        (
            {"MAIL": HANG_UP},
            DestinationUnavailable("the mail server went away at MAIL FROM: {}: it closed the connection"),
        ),
    ],
)
def test_commands_that_were_sent_together_are_answered_one_by_one(
    mailer: Open, answers: Answers, outcome: Failed | DestinationUnavailable
) -> None:
    with ScriptedMailServer({**PIPELINING, **answers}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    expected = replace(outcome, reason=outcome.reason.format(f"{LOOPBACK}:{server.port}"))
    assert (outcomes, server.contents) == ([expected] * 2, [])


def test_nobody_gets_a_mail_whose_recipient_was_refused(mailer: Open) -> None:
    with ScriptedMailServer({**PIPELINING, "RCPT": "550 no"}) as server:
        sender = mailer(server.port)
        sender.send(MAIL, lease())
        sender.send(MAIL, lease())

    assert [[line.split()[0].upper() for line in heard] for heard in server.said] == [
        ["EHLO", "MAIL", "RCPT", "DATA"]
    ] * 2
    assert server.contents == []


def test_silence_after_the_dot_may_mean_acceptance(mailbox: MailCatcher, mailer: Open) -> None:
    mailbox.set_fault("data-hang")

    outcome = mailer(mailbox.smtp_port).send(MAIL, lease(0.75))

    assert outcome == unanswered(mailbox.smtp_port, "no answer in time")


def test_silence_after_the_dot_ends_at_the_deadline(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port, step_seconds=LONG)
    sender.send(MAIL, lease())
    mailbox.set_fault("data-hang")

    with takes(1.0, 8.0):
        outcome = sender.send(MAIL, lease(3.0))

    assert outcome == unanswered(mailbox.smtp_port, "no answer in time")


def test_a_connection_lost_after_the_dot_may_mean_acceptance(mailbox: MailCatcher, mailer: Open) -> None:
    mailbox.set_fault("drop-after-accept")
    sender = mailer(mailbox.smtp_port)

    outcome = sender.send(MAIL, lease())

    assert outcome == unanswered(mailbox.smtp_port, "it closed the connection")
    assert len(mailbox.mails()) == 1
    mailbox.set_fault(None)
    assert sender.send(MAIL, lease()) == Accepted()
