"""Answers without an end cost neither memory nor time, and mean what their beginning says."""

import resource

import pytest

from consumer.model.outcomes import Accepted, DestinationUnavailable, Failed
from tests.consumer.mail.smtp.sending import LONG, MAIL, Open, lease, takes
from tests.servers.scripted_mail_server import CONTENT, GREETING, Answer, ScriptedMailServer, Session

MEGABYTE = 1024 * 1024


def without_end(line: bytes) -> Answer:
    """Say the same again and again until the client hangs up."""

    def answer(session: Session) -> str:
        block = line * (MEGABYTE // len(line))
        try:
            while True:
                session.connection.sendall(block)
        except OSError:
            return "hang up"

    return answer


def peak_kilobytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("shape", ["lines", "one line"])
@pytest.mark.parametrize(
    ("step", "code"), [(GREETING, 220), ("EHLO", 250), ("MAIL", 250), ("RCPT", 250), ("DATA", 354)]
)
def test_an_endless_answer_before_the_dot_is_an_outage_at_once(mailer: Open, step: str, code: int, shape: str) -> None:
    endless = without_end(f"{code}-{'x' * 70}\r\n".encode() if shape == "lines" else f"{code} xxxxxxxx".encode())
    before = peak_kilobytes()
    with ScriptedMailServer({step: endless}) as server, takes(0, 5.0):
        outcome = mailer(server.port, step_seconds=LONG).send(MAIL, lease())

    assert isinstance(outcome, DestinationUnavailable)
    assert server.contents == []
    assert peak_kilobytes() - before < 16 * 1024


def test_an_endless_refusal_is_a_refusal(mailer: Open) -> None:
    with ScriptedMailServer({"RCPT": without_end(b"550-5.1.1 no such user\r\n")}) as server, takes(0, 5.0):
        sender = mailer(server.port, step_seconds=LONG)
        outcome = sender.send(MAIL, lease())

    assert isinstance(outcome, Failed)
    assert (outcome.reason[:28], outcome.is_permanent) == ("refused: 550 5.1.1 no such u", True)


def test_an_endless_yes_after_the_dot_is_a_yes(mailer: Open) -> None:
    with ScriptedMailServer({CONTENT: without_end(b"250-accepted\r\n")}) as server, takes(0, 5.0):
        sender = mailer(server.port, step_seconds=LONG)
        outcome = sender.send(MAIL, lease())

    assert outcome == Accepted()
    assert len(server.contents) == 1


def test_a_long_answer_with_half_an_address_in_each_line_costs_no_time(mailer: Open) -> None:
    lines = "\n".join(["550-" + "a" * 8000] * 259 + ["550 " + "a" * 8000])
    with ScriptedMailServer({"RCPT": lines}) as server, takes(0, 5.0):
        outcome = mailer(server.port, step_seconds=LONG).send(MAIL, lease())

    assert isinstance(outcome, Failed)
    assert (outcome.is_permanent, len(outcome.reason) <= 220) == (True, True)


def test_the_next_mail_goes_over_another_connection(mailer: Open) -> None:
    with ScriptedMailServer({"RCPT": _long_for_the_first}) as server:
        sender = mailer(server.port)
        outcomes = [sender.send(MAIL, lease()) for _ in range(2)]

    assert [type(outcome) for outcome in outcomes] == [Failed, Accepted]
    assert len(server.said) == 2


def _long_for_the_first(session: Session) -> str:
    return "\n".join(["550-no"] * 1000 + ["550 no"]) if len(session.server.said) == 1 else "250 OK"
