"""A send has one deadline."""

from time import monotonic

import pytest

from consumer.lease import Lease
from consumer.outcomes import Accepted, LeaseOver, Outage
from embedded.mail_catcher import MailCatcher
from tests.integration.smtp.sending import LONG, MAIL, Open, OverAtTheDot, lease, takes
from tests.scripted_mail_server import GREETING, ScriptedMailServer


@pytest.mark.parametrize("fault", ["slow:0.4", "drip", "greet-hang", "mail-hang", "rcpt-hang"])
def test_the_whole_send_has_one_deadline(mailbox: MailCatcher, mailer: Open, fault: str) -> None:
    mailbox.set_fault(fault)

    with takes(0.4, 5.0):
        outcome = mailer(mailbox.smtp_port, step_seconds=LONG).send(MAIL, lease(0.75))

    assert isinstance(outcome, Outage)
    assert mailbox.mails() == []


def test_the_deadline_holds_on_a_kept_connection_too(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port, step_seconds=LONG)
    sender.send(MAIL, lease())
    mailbox.set_fault("mail-hang")

    with takes(0.4, 5.0):
        outcome = sender.send(MAIL, lease(0.75))

    assert isinstance(outcome, Outage)


@pytest.mark.parametrize(
    ("step", "code"), [(GREETING, 220), ("EHLO", 250), ("MAIL", 250), ("RCPT", 250), ("DATA", 354)]
)
def test_the_deadline_holds_for_an_answer_that_drips(mailer: Open, step: str, code: int) -> None:
    answers = {step: f"{code} {'x' * 1000}"}
    with ScriptedMailServer(answers, seconds_per_byte=0.01) as server, takes(0.4, 5.0):
        outcome = mailer(server.port, step_seconds=LONG).send(MAIL, lease(0.75))

    assert isinstance(outcome, Outage)
    assert server.contents == []


def test_without_time_left_nothing_is_tried(mailbox: MailCatcher, mailer: Open) -> None:
    with takes(0, 3.0):
        outcome = mailer(mailbox.smtp_port).send(MAIL, Lease(monotonic() - LONG, LONG))

    assert isinstance(outcome, Outage)
    assert mailbox.mails() == []


def test_nothing_arrives_when_the_lease_is_over_before_the_dot(mailbox: MailCatcher, mailer: Open) -> None:
    sender = mailer(mailbox.smtp_port, step_seconds=LONG)

    outcome = sender.send(MAIL, OverAtTheDot(monotonic(), LONG))

    assert outcome == LeaseOver()
    assert sender.send(MAIL, lease(10.0)) == Accepted()
    assert len(mailbox.mails()) == 1
