"""A greeting and the answer to a mail's content may take as long as the lease allows, every other step less."""

from dataclasses import dataclass, field
from time import monotonic

import pytest

from consumer.model.outcomes import Accepted, DestinationUnavailable, Failed
from tests.consumer.mail.smtp.sending import MAIL, QUICK, Open, lease, takes, unanswered
from tests.servers.scripted_mail_server import CONTENT, GREETING, Answer, ScriptedMailServer, Session

LATE = 2 * QUICK


def late(answer: str, seconds: float = LATE) -> Answer:
    def wait(session: Session) -> str:
        session.server.is_stopping.wait(seconds)
        return answer

    return wait


@pytest.mark.parametrize("step", [GREETING, CONTENT])
def test_a_late_greeting_or_answer_to_the_mail_is_waited_for(mailer: Open, step: str) -> None:
    with ScriptedMailServer({step: late("220 scripted")}) as server, takes(LATE, 10.0):
        outcome = mailer(server.port, step_seconds=QUICK).send(MAIL, lease())

    assert outcome == Accepted()


@pytest.mark.parametrize(
    ("step", "answer"), [("EHLO", "250 OK"), ("MAIL", "250 OK"), ("RCPT", "250 OK"), ("DATA", "354 go")]
)
def test_every_other_step_has_its_limit(mailer: Open, step: str, answer: str) -> None:
    with ScriptedMailServer({step: late(answer)}) as server:
        outcome = mailer(server.port, step_seconds=QUICK).send(MAIL, lease())

    assert isinstance(outcome, DestinationUnavailable)
    assert server.contents == []


@pytest.mark.parametrize("step", [GREETING, CONTENT])
def test_the_wait_ends_with_two_thirds_of_the_lease(mailer: Open, step: str) -> None:
    with ScriptedMailServer({step: late("220 scripted", 3.0)}) as server, takes(1.0, 2.9):
        outcome = mailer(server.port, step_seconds=QUICK).send(MAIL, lease(1.5))

    assert isinstance(outcome, DestinationUnavailable if step == GREETING else Failed)


@dataclass
class Renewal:
    """Adds to the wait so many times."""

    times: int
    asked_at: list[float] = field(default_factory=list)

    def __call__(self) -> float | None:
        self.asked_at.append(monotonic())
        return None if len(self.asked_at) > self.times else monotonic() + 0.5


def test_the_wait_for_the_answer_to_the_mail_can_be_extended(mailer: Open) -> None:
    renewal = Renewal(times=10)
    with ScriptedMailServer({CONTENT: late("250 OK", 1.2)}) as server:
        outcome = mailer(server.port).send(MAIL, lease(0.75), renewal)

    assert outcome == Accepted()
    assert 1 <= len(renewal.asked_at) <= 5


def test_an_extension_that_is_refused_ends_the_wait(mailer: Open) -> None:
    renewal = Renewal(times=1)
    with ScriptedMailServer({CONTENT: late("250 OK", 2.0)}) as server, takes(0.9, 1.9):
        outcome = mailer(server.port).send(MAIL, lease(0.75), renewal)

    assert outcome == unanswered(server.port, "no answer in time")
    assert len(renewal.asked_at) == 2


def test_nothing_but_that_wait_is_extended(mailer: Open) -> None:
    renewal = Renewal(times=10)
    with ScriptedMailServer({"RCPT": late("250 OK", 1.0)}) as server:
        outcome = mailer(server.port).send(MAIL, lease(0.75), renewal)

    assert isinstance(outcome, DestinationUnavailable)
    assert renewal.asked_at == []
