"""A send has one deadline."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from consumer.model.lease import Lease
from consumer.model.outcomes import Accepted, DestinationUnavailable, LeaseOver, Released
from embedded.mail.catcher import MailCatcher
from tests.consumer.mail.smtp.sending import LONG, MAIL, Open, OverAtTheDot, lease, outage, takes
from tests.servers.scripted_mail_server import GREETING, ScriptedMailServer, Session


@pytest.mark.parametrize("fault", ["slow:0.4", "drip", "greet-hang", "mail-hang", "rcpt-hang"])
def test_the_whole_send_has_one_deadline(mailbox: MailCatcher, mailer: Open, fault: str) -> None:
    mailbox.set_fault(fault)

    with takes(0.4, 5.0):
        outcome = mailer(mailbox.smtp_port, step_seconds=LONG).send(MAIL, lease(0.75))

    assert isinstance(outcome, DestinationUnavailable)
    assert mailbox.mails() == []


def test_the_deadline_holds_on_a_kept_connection_too(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port, step_seconds=LONG)
    sender.send(MAIL, lease())
    mailbox.set_fault("mail-hang")

    with takes(0.4, 5.0):
        outcome = sender.send(MAIL, lease(0.75))

    assert isinstance(outcome, DestinationUnavailable)


@pytest.mark.parametrize(
    ("step", "code"), [(GREETING, 220), ("EHLO", 250), ("MAIL", 250), ("RCPT", 250), ("DATA", 354)]
)
def test_the_deadline_holds_for_an_answer_that_drips(mailer: Open, step: str, code: int) -> None:
    answers = {step: f"{code} {'x' * 1000}"}
    with ScriptedMailServer(answers, seconds_per_byte=0.01) as server, takes(0.4, 5.0):
        outcome = mailer(server.port, step_seconds=LONG).send(MAIL, lease(0.75))

    assert isinstance(outcome, DestinationUnavailable)
    assert server.contents == []


def test_a_mail_whose_time_is_over_takes_no_other_connection(mailer: Open) -> None:
    def hang(session: Session) -> str:
        if session.mails:
            session.server.is_stopping.wait(3)
        return "250 OK"

    both_are_sending = threading.Barrier(2)

    def meet(session: Session) -> str:
        if not session.mails:
            both_are_sending.wait(10)
        return "354 go on"

    with ScriptedMailServer({"MAIL": hang, "DATA": meet}) as server, ThreadPoolExecutor(2) as threads:
        sender = mailer(server.port, connections=2, idle_seconds=LONG)
        list(threads.map(lambda mail: sender.send(mail, lease()), [MAIL, MAIL]))

        outcome = sender.send(MAIL, lease(0.75))

        # Dialing in vain would have made what is left count as all that the server takes.
        assert (sender.connection_limit, len(server.said)) == (2, 2)
    assert outcome == outage("the mail server went away at MAIL FROM", server.port, "no answer in time")


def test_without_time_left_nothing_is_tried(mailbox: MailCatcher, mailer: Open) -> None:
    with takes(0, 3.0):
        outcome = mailer(mailbox.smtp_port).send(MAIL, Lease(monotonic() - LONG, LONG))

    assert isinstance(outcome, Released)
    assert mailbox.mails() == []


def test_nothing_arrives_when_the_lease_is_over_before_the_dot(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port, step_seconds=LONG)

    outcome = sender.send(MAIL, OverAtTheDot(monotonic(), LONG))

    assert outcome == LeaseOver()
    assert sender.send(MAIL, lease(10.0)) == Accepted()
    assert len(mailbox.mails()) == 1
