"""Limits of a mail server: of a session, of connections at once, of mails in a time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic

import pytest

from consumer.mail.client import Mailer
from consumer.model.outcomes import Accepted, DestinationUnavailable, Failed, Outcome, Released
from tests.consumer.mail.smtp.sending import MAIL, Answers, Open, both_manners, lease, takes
from tests.servers.scripted_mail_server import CONTENT, GREETING, HANG_UP, Answer, ScriptedMailServer, Session
from tests.waiting import wait_until

AT_ONCE = 10


def send_all(mailer: Mailer, count: int, *, seconds: float = 30.0) -> list[Outcome]:
    """Send mails to different recipients, ten at once."""
    mails = [replace(MAIL, recipient=f"user{number}@example.com") for number in range(count)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda mail: mailer.send(mail, lease(seconds)), mails))


def after_five_mails(answer: str) -> Callable[[Session], str]:
    return lambda session: answer if session.mails >= 5 else "354 go on"


@both_manners
@pytest.mark.parametrize(
    ("step", "good", "limit"),
    [
        ("MAIL", "250 OK", "452 4.4.5 too many mails in this session"),
        ("MAIL", "250 OK", "421 4.7.0 closing"),
        ("RCPT", "250 OK", "452 4.5.3 too many recipients"),
        ("RCPT", "250 OK", "451 try again"),
        ("RCPT", "250 OK", HANG_UP),
        ("DATA", "354 go on", "452 4.4.5 too many mails in this session"),
        ("DATA", "354 go on", "450 no more"),
        ("DATA", "354 go on", f"421 bye {HANG_UP}"),
        ("DATA", "354 go on", "what?"),
        (CONTENT, "250 OK", "451 4.3.0 no more"),
        (CONTENT, "250 OK", "452 no more"),
    ],
)
def test_a_limit_of_a_session_spends_nothing(mailer: Open, manner: Answers, step: str, good: str, limit: str) -> None:
    answers: dict[str, Answer] = {**manner, step: lambda session: limit if session.mails >= 5 else good}
    with ScriptedMailServer(answers) as server:
        sender = mailer(server.port)

        outcomes = [sender.send(MAIL, lease()) for _ in range(23)]

    assert outcomes == [Accepted()] * 23
    assert len(server.said) == 5


@both_manners
@pytest.mark.parametrize("answer", ["450 4.2.0 greylisted", "452 4.2.2 mailbox full", "450 4.1.1 unknown for now"])
def test_what_is_the_recipients_is_not_tried_again_on_a_fresh_connection(
    mailer: Open, manner: Answers, answer: str
) -> None:
    answers: dict[str, Answer] = {**manner, "RCPT": lambda session: answer if "bob" in session.recipient else "250 OK"}
    with ScriptedMailServer(answers) as server:
        sender = mailer(server.port)
        outcomes = [sender.send(MAIL, lease()), sender.send(replace(MAIL, recipient="bob@example.com"), lease())]

    assert outcomes == [Accepted(), Failed(f"refused: {answer}")]
    assert sum(line.upper().startswith("RCPT") for heard in server.said for line in heard) == 2


@both_manners
@pytest.mark.parametrize("step", ["RCPT", "DATA", CONTENT])
def test_an_attempt_is_spent_when_a_fresh_connection_does_no_better(mailer: Open, manner: Answers, step: str) -> None:
    answers: dict[str, Answer] = {**manner, step: lambda session: _unless_to_bob(session, step, "451 not now")}
    with ScriptedMailServer(answers) as server:
        sender = mailer(server.port)
        outcomes = [sender.send(MAIL, lease()), sender.send(replace(MAIL, recipient="bob@example.com"), lease())]

    assert outcomes == [Accepted(), Failed("refused: 451 not now")]
    assert len(server.said) == 2


def _unless_to_bob(session: Session, step: str, refusal: str) -> str:
    good = "354 go on" if step == "DATA" else "250 OK"
    return refusal if "bob" in session.recipient else good


@both_manners
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", CONTENT])
def test_a_limit_of_mails_in_a_time_is_an_outage(mailer: Open, manner: Answers, step: str) -> None:
    limit = "450 4.7.1 Error: too much mail"
    good = "354 go on" if step == "DATA" else "250 OK"
    answers: dict[str, Answer] = {
        **manner,
        step: lambda session: limit if len(session.server.accepted) >= 5 else good,
    }
    with ScriptedMailServer(answers) as server:
        outcomes = send_all(mailer(server.port, connections=AT_ONCE), 40)

    accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
    others = [outcome for outcome in outcomes if not isinstance(outcome, Accepted)]
    assert 5 <= len(accepted) <= 5 + AT_ONCE
    assert {type(outcome) for outcome in others} == {DestinationUnavailable}
    assert {outcome.is_busy for outcome in others if isinstance(outcome, DestinationUnavailable)} == {step != "MAIL"}
    assert {outcome.after_mail_from for outcome in others if isinstance(outcome, DestinationUnavailable)} == {
        step != "MAIL"
    }


def test_a_refusal_like_that_of_a_limit_is_the_mails_own_when_another_is_taken_meanwhile(mailer: Open) -> None:
    """Some servers greylist with the code of a limit: whether others are accepted distinguishes the two."""
    was_refused, another_was_taken = threading.Event(), threading.Event()

    def greylist(session: Session) -> str:
        if "bob" not in session.recipient:
            return "250 OK"
        if was_refused.is_set():
            assert another_was_taken.wait(10)
        was_refused.set()
        return "450 4.7.1 greylisted"

    with ScriptedMailServer({"RCPT": greylist}) as server, ThreadPoolExecutor(1) as thread:
        sender = mailer(server.port, connections=2)
        sender.send(MAIL, lease())
        bob = thread.submit(sender.send, replace(MAIL, recipient="bob@example.com"), lease())
        assert was_refused.wait(10)
        assert sender.send(MAIL, lease()) == Accepted()
        another_was_taken.set()

    assert bob.result() == Failed("refused: 450 4.7.1 greylisted")


def three_at_once(refusal: str) -> Callable[[Session], str]:
    return lambda session: refusal if session.place > 3 else "220 scripted"


@pytest.mark.parametrize("refusal", [f"421 4.7.0 too many connections {HANG_UP}", f"554 no {HANG_UP}", HANG_UP])
def test_a_limit_of_connections_makes_the_pool_smaller(mailer: Open, refusal: str) -> None:
    with ScriptedMailServer({GREETING: three_at_once(refusal)}) as server:
        outcomes = send_all(mailer(server.port, connections=AT_ONCE), 200)

    assert outcomes == [Accepted()] * 200
    assert len(server.said) < 60


@both_manners
@pytest.mark.parametrize(
    ("step", "refusal"),
    [
        ("MAIL", "421 4.3.2 too many connections"),
        ("MAIL", "450 too many connections"),
        ("DATA", "432 4.3.2 too many connections"),
        (CONTENT, "432 4.3.2 concurrent connections limit exceeded"),
        (CONTENT, "432 too many"),
        (CONTENT, f"421 4.3.2 too many {HANG_UP}"),
    ],
)
def test_a_limit_of_connections_may_be_announced_later(mailer: Open, manner: Answers, step: str, refusal: str) -> None:
    good = "354 go on" if step == "DATA" else "250 OK"
    answers: dict[str, Answer] = {
        **manner,
        step: lambda session: refusal if len(session.server.sessions) > 3 else good,
    }
    with ScriptedMailServer(answers) as server:
        outcomes = send_all(mailer(server.port, connections=AT_ONCE), 100)

    assert outcomes == [Accepted()] * 100


def test_an_attempt_is_not_spent_where_no_fresh_connection_was_to_be_had(mailer: Open) -> None:
    both_are_sending, is_full = threading.Barrier(2), threading.Event()

    def meet(_session: Session) -> str:
        both_are_sending.wait(10)
        return "354 go on"

    answers: dict[str, Answer] = {
        GREETING: lambda _: f"421 too many {HANG_UP}" if is_full.is_set() else "220 scripted",
        "RCPT": lambda session: "451 try again" if session.mails else "250 OK",
        "DATA": meet,
    }
    with ScriptedMailServer(answers) as server:
        sender = mailer(server.port, connections=2)
        assert send_all(sender, 2) == [Accepted()] * 2
        is_full.set()

        outcome = sender.send(MAIL, lease())

    assert (len(server.said), isinstance(outcome, DestinationUnavailable) and outcome.is_busy) == (3, True)


@pytest.mark.parametrize("refusal", ["421 no", "452 4.3.2 not now"])
def test_a_recipient_who_is_always_refused_like_a_connection_too_many_fails_beside_others(
    mailer: Open, refusal: str
) -> None:
    all_are_sending, another_was_taken = threading.Barrier(4), threading.Event()
    refused: list[Session] = []

    def meet(session: Session) -> str:
        if not session.mails:
            all_are_sending.wait(10)
        return "354 go on"

    def refuse_bob(session: Session) -> str:
        if "bob" not in session.recipient:
            return "250 OK"
        refused.append(session)
        if len(refused) > 1:
            assert another_was_taken.wait(10)
        return refusal

    with ScriptedMailServer({"RCPT": refuse_bob, "DATA": meet}) as server, ThreadPoolExecutor(1) as thread:
        sender = mailer(server.port, connections=4, idle_seconds=60.0)
        assert send_all(sender, 4) == [Accepted()] * 4
        bob = thread.submit(sender.send, replace(MAIL, recipient="bob@example.com"), lease())
        wait_until(lambda: len(refused) > 1, 10, "the first two refusals")
        assert sender.send(MAIL, lease()) == Accepted()
        another_was_taken.set()

        assert bob.result() == Failed(f"refused: {refusal}")


def test_the_full_number_of_connections_comes_back(mailer: Open) -> None:
    limit = 2
    with ScriptedMailServer({GREETING: lambda session: _within(session, limit)}) as server:
        sender = mailer(server.port, connections=4)
        send_all(sender, 40)
        lowered = sender.connection_limit
        limit = 100
        until = monotonic() + 30
        while sender.connection_limit < 4 and monotonic() < until:
            send_all(sender, 40)

    # One more may be tried at this moment.
    assert lowered in {2, 3}
    assert sender.connection_limit == 4


def _within(session: Session, limit: int) -> str:
    return f"421 too many {HANG_UP}" if session.place > limit else "220 scripted"


def test_who_waits_for_a_place_learns_at_once_that_the_server_is_away(mailer: Open) -> None:
    is_gone = threading.Event()

    def greet(session: Session) -> str:
        return HANG_UP if is_gone.is_set() else _within(session, 1)

    def hang(_session: Session) -> str:
        assert is_gone.wait(10)
        return HANG_UP

    with (
        ScriptedMailServer({GREETING: greet, "DATA": hang}) as server,
        ThreadPoolExecutor(AT_ONCE) as threads,
        takes(0, 8.0),
    ):
        sender = mailer(server.port, connections=AT_ONCE)
        sending = [threads.submit(sender.send, MAIL, lease()) for _ in range(AT_ONCE)]
        wait_until(lambda: sender.connection_limit == 1, 5, "the limit to be known")
        is_gone.set()

        outcomes = [each.result() for each in sending]

    assert {type(outcome) for outcome in outcomes} == {DestinationUnavailable}


def test_who_gets_no_place_in_time_gives_the_attempt_back(mailer: Open) -> None:
    is_over = threading.Event()

    def hang(_session: Session) -> str:
        assert is_over.wait(10)
        return "354 go on"

    with (
        ScriptedMailServer({GREETING: lambda session: _within(session, 1), "DATA": hang}) as server,
        ThreadPoolExecutor(1) as thread,
    ):
        sender = mailer(server.port, connections=2)
        first = thread.submit(sender.send, MAIL, lease())
        wait_until(lambda: server.said and len(server.said[0]) > 2, 5, "the first mail to be on its way")

        late = sender.send(MAIL, lease(1.5))
        is_over.set()

    assert late == Released("the mail server accepts no further connection now")
    assert first.result() == Accepted()
