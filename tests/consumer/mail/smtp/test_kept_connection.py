"""The connection is kept for the next mail."""

import pytest

from consumer.mail.client import Envelope
from consumer.model.outcomes import Accepted, Failed
from embedded.mail.catcher import MailCatcher
from tests.consumer.mail.smtp.sending import MAIL, Open, lease, takes
from tests.servers.scripted_mail_server import CONTENT, HANG_UP, PIPELINING, Answer, ScriptedMailServer
from tests.waiting import wait_until


def test_the_connection_is_kept_for_the_next_mail(mailer: Open) -> None:
    with ScriptedMailServer({}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(3)]

    assert outcomes == [Accepted()] * 3
    commands = [[line.split()[0].upper() for line in heard] for heard in server.said]
    assert commands == [["EHLO"] + ["MAIL", "RCPT", "DATA"] * 3]


def test_a_connection_to_a_server_that_takes_several_commands_at_once_is_kept_too(mailer: Open) -> None:
    with ScriptedMailServer(PIPELINING) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(3)]

    assert (outcomes, len(server.said), server.contents) == ([Accepted()] * 3, 1, [MAIL.content] * 3)


def test_it_introduces_itself_by_the_given_name(mailer: Open) -> None:
    with ScriptedMailServer({}) as server:
        mailer(server.port, helo_name="mail.example.org").send(MAIL, lease())

    assert server.said[0][0] == "ehlo mail.example.org"


def test_a_refused_mail_leaves_the_connection_ready_for_the_next(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port)
    mailbox.set_fault(f"rcpt-550:{MAIL.recipient}")
    other = Envelope(MAIL.sender, "bob@example.com", MAIL.content)

    outcomes = [type(sender.send(mail, lease())) for mail in (MAIL, other, MAIL, other)]

    assert outcomes == [Failed, Accepted, Failed, Accepted]
    assert [mail.recipients for mail in mailbox.mails()] == [("bob@example.com",)] * 2


@pytest.mark.parametrize("answer", ["503 no valid recipients", "354 go on"])
def test_a_refused_recipient_ends_a_connection_on_which_data_is_sent_already(mailer: Open, answer: str) -> None:
    """The reply to DATA would be taken for that of the next command, or the server waits for a content."""
    answers: dict[str, Answer] = {
        **PIPELINING,
        "RCPT": lambda session: "450 4.2.0 greylisted" if "bob" in session.recipient else "250 OK",
        "DATA": lambda session: answer if "bob" in session.recipient else "354 go on",
    }
    with ScriptedMailServer(answers) as server, takes(0, 4.0):
        sender = mailer(server.port)
        to_bob = Envelope(MAIL.sender, "bob@example.com", MAIL.content)

        outcomes = [sender.send(mail, lease()) for mail in (to_bob, MAIL)]

    assert outcomes == [Failed("refused: 450 4.2.0 greylisted"), Accepted()]
    assert [line.split()[0].upper() for line in server.said[0]] == ["EHLO", "MAIL", "RCPT", "DATA"]
    assert (len(server.said), server.contents) == (2, [MAIL.content])


def test_a_connection_that_the_server_dropped_in_between_is_replaced(mailer: Open) -> None:
    with ScriptedMailServer({CONTENT: f"250 OK {HANG_UP}"}) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(3)]

    assert (outcomes, len(server.contents), len(server.said)) == ([Accepted()] * 3, 3, 3)


def test_a_server_that_was_restarted_in_between_gets_the_next_mail(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port)
    sender.send(MAIL, lease())
    mailbox.stop()
    mailbox.start()

    assert sender.send(MAIL, lease()) == Accepted()


def test_a_connection_that_was_idle_for_long_is_replaced(mailer: Open) -> None:
    with ScriptedMailServer({}) as server:
        sender = mailer(server.port, idle_seconds=0.0)

        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert (outcomes, len(server.said)) == ([Accepted()] * 2, 2)


def test_an_idle_connection_is_given_back(mailer: Open) -> None:
    with ScriptedMailServer({}) as server:
        sender = mailer(server.port, idle_seconds=0.0)
        sender.send(MAIL, lease())

        sender.close_idle()

        wait_until(lambda: not server.sessions, 5, "the connection to be closed")
    assert server.said[0][-1].lower() == "quit"


def test_closing_waits_for_no_answer(mailbox: MailCatcher, mailer: Open) -> None:
    mailbox.set_fault("quit-hang")
    sender = mailer(mailbox.smtp_port)
    sender.send(MAIL, lease())

    with takes(0, 3.0):
        sender.close()
