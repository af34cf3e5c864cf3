"""The checks of a chaos run report each kind of error."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checking.accounting import settle
from tests.chaos.checking.evidence import AppliedFault, Claim, Copy, Evidence, Message, Signup
from tests.chaos.load import FIRST_REPETITION
from tests.chaos.supervisor import Exit

LEASE_ENDED = "the worker died or froze: its lease ended without a result"
NO_ANSWER = "no answer after the mail was sent (SMTPServerDisconnected)"
LINK = "http://127.0.0.1:1/v1/verify_email?email_id=1&secret_code=x"

ALICE = Signup("alice", "alice@example.com", acknowledged_by=201, answers={"201": 1})
DONE = Claim(1, "worker-1", attempt=1, began=10.0, ended=11.0, end="done", ended_by="worker-1")
SPENT = Claim(
    1,
    "worker-1",
    attempt=1,
    began=2.0,
    ended=8.5,
    end="spent",
    ended_by="relay-1",
    reason=LEASE_ENDED,
    maybe_accepted=True,
)
MAIL = Copy("mail 2", 1, ALICE.email, LINK, is_authentic=True, arrived_at=10.5)
EARLIER_MAIL = replace(MAIL, name="mail 1", arrived_at=3.0)
KILL = AppliedFault("worker-kill", "worker-1", "parent", began=4.0, ended=4.0)


def evidence(**changes: Any) -> Evidence:
    """One user who signed up and got a mail, with some of it changed."""
    values: dict[str, Any] = {
        "signups": [ALICE],
        "users": {ALICE.username: ALICE.email},
        "messages": {1: Message(1, ALICE.username, "done")},
        "seen_ids": {1},
        "claims": [DONE],
        "copies": [MAIL],
        "faults": [],
        "exits": [],
        "seconds_to_answers": 0.5,
        "seconds_to_quiet": 1.0,
    }
    return Evidence(**{**values, **changes})


def test_a_user_with_a_mail_is_right() -> None:
    account = settle(evidence())

    assert account.wrong == []
    names = ("signups", "acknowledged", "committed", "mailed", "lost", "ghosts", "duplicates")
    assert [account.figures[name] for name in names] == [1, 1, 1, 1, 0, 0, 0]


def test_a_committed_user_without_a_mail_is_lost() -> None:
    account = settle(evidence(copies=[]))

    assert (account.figures["lost"], account.figures["mailed"]) == (1, 0)
    assert account.wrong == ["lost: alice is committed and got no mail, the message is done"]


@pytest.mark.parametrize("status", ["pending", "published", "running"])
def test_a_mail_that_is_on_its_way_at_the_end_is_late_and_fails_the_run(status: str) -> None:
    messages = {1: Message(1, ALICE.username, status)}

    account = settle(evidence(copies=[], messages=messages))

    assert (account.figures["not mailed yet"], account.figures["lost"]) == (1, 0)
    assert account.wrong == ["late: the mail to alice is on its way"]


@pytest.mark.parametrize("status", ["done", "dead", "discarded"])
def test_a_message_that_ended_without_a_mail_is_lost(status: str) -> None:
    account = settle(evidence(copies=[], messages={1: Message(1, ALICE.username, status)}))

    assert (account.figures["not mailed yet"], account.figures["lost"]) == (0, 1)


def test_a_user_without_a_message_is_lost() -> None:
    account = settle(evidence(copies=[], messages={}, seen_ids=set(), claims=[]))

    assert account.wrong == ["lost: alice is committed and got no mail, the message is nowhere"]


@pytest.mark.parametrize("status", [201, 200])
def test_an_acknowledged_signup_that_is_not_committed_is_lost(status: int) -> None:
    bob = Signup("bob", "bob@example.com", acknowledged_by=status, answers={"503": 1, str(status): 1})

    account = settle(evidence(signups=[ALICE, bob]))

    assert account.figures["lost"] == 1
    assert account.wrong == [f"lost: bob was answered {status} and is not committed"]


def test_a_user_committed_under_another_address_is_lost() -> None:
    account = settle(evidence(users={"alice": "mallory@example.com"}))

    assert account.figures["lost"] == 2


def test_an_address_in_the_wrong_mail_does_not_count_as_mailed() -> None:
    account = settle(evidence(copies=[replace(MAIL, recipient="mallory@example.com")]))

    assert (account.figures["lost"], account.figures["ghosts"]) == (1, 1)


@pytest.mark.parametrize(
    "mail",
    [
        replace(MAIL, recipient="nobody@example.com"),
        replace(MAIL, message_id=2),
        replace(MAIL, message_id=None),
    ],
    ids=["of no user", "of no message", "without an id"],
)
def test_a_mail_of_no_user_is_a_ghost(mail: Copy) -> None:
    account = settle(evidence(copies=[MAIL, mail]))

    assert account.figures["ghosts"] == 1
    assert account.wrong[0].startswith("ghost: mail 2 to ")


def test_a_second_copy_is_explained_by_the_death_of_the_worker_that_had_the_claim() -> None:
    account = settle(evidence(copies=[EARLIER_MAIL, MAIL], claims=[SPENT, DONE], faults=[KILL]))

    assert account.wrong == []
    assert [account.figures[f"duplicates{kind}"] for kind in ("", " explained", " unexplained")] == [1, 1, 0]
    assert account.figures["attempts spent"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        replace(KILL, target="worker-2"),
        replace(KILL, began=30.0, ended=30.0),
        replace(KILL, kind="relay-kill", target="relay-1"),
        replace(KILL, kind="mail-drop-after-accept", target="mail"),
    ],
    ids=["another worker", "another time", "a relay", "a mail server, though the worker's lease ended"],
)
def test_a_second_copy_is_not_explained_by_what_did_not_touch_its_claim(fault: AppliedFault) -> None:
    account = settle(evidence(copies=[EARLIER_MAIL, MAIL], claims=[SPENT, DONE], faults=[fault]))

    assert (account.figures["duplicates"], account.figures["duplicates unexplained"]) == (1, 1)
    assert any(story.startswith("duplicate without a cause: message 1") for story in account.wrong)


@pytest.mark.parametrize("kind", ["mail-drop-after-accept", "mail-kill"])
def test_a_second_copy_is_explained_by_a_mail_server_that_took_the_mail_without_an_answer(kind: str) -> None:
    silent = replace(SPENT, ended=3.5, ended_by="worker-1", reason=NO_ANSWER)
    fault = AppliedFault(kind, "mail", "parent", began=2.5, ended=3.4)

    account = settle(evidence(copies=[EARLIER_MAIL, MAIL], claims=[silent, DONE], faults=[fault]))

    assert (account.wrong, account.figures["duplicates explained"]) == ([], 1)


def test_a_mail_server_that_hangs_before_it_keeps_the_mail_explains_an_attempt_and_no_copy() -> None:
    silent = replace(SPENT, ended=3.5, ended_by="worker-1", reason=NO_ANSWER)
    fault = AppliedFault("mail-hang-after-dot", "mail", "parent", began=2.5, ended=3.4)

    account = settle(evidence(copies=[EARLIER_MAIL, MAIL], claims=[silent, DONE], faults=[fault]))

    names = ("duplicates unexplained", "attempts spent without a cause")
    assert [account.figures[name] for name in names] == [1, 0]


def test_a_second_copy_of_a_claim_that_says_nothing_was_sent_is_not_explained() -> None:
    given_back = replace(SPENT, end="given back", reason="the mail server went away", maybe_accepted=False)

    account = settle(evidence(copies=[EARLIER_MAIL, MAIL], claims=[given_back, DONE], faults=[KILL]))

    assert account.figures["duplicates unexplained"] == 1


def test_a_copy_that_no_claim_could_have_sent_is_not_explained() -> None:
    account = settle(evidence(copies=[EARLIER_MAIL, MAIL], faults=[KILL]))

    assert account.figures["duplicates unexplained"] == 1
    assert "no claim" in account.wrong[0]


def test_a_copy_sent_by_a_worker_that_froze_past_its_lease_belongs_to_its_own_claim() -> None:
    stop = AppliedFault("worker-stop", "worker-1", "parent", began=4.0, ended=10.6)
    again = replace(DONE, by="worker-2", attempt=2)
    late = replace(MAIL, name="late", arrived_at=10.7)

    account = settle(evidence(copies=[MAIL, late], claims=[SPENT, again], faults=[stop]))

    assert (account.wrong, account.figures["duplicates explained"]) == ([], 1)


def test_a_message_that_is_done_twice_is_wrong() -> None:
    again = replace(DONE, began=12.0, ended=13.0)

    account = settle(evidence(copies=[MAIL, replace(MAIL, arrived_at=12.5)], claims=[DONE, again], faults=[KILL]))

    assert account.figures["duplicates unexplained"] == 1
    assert "two claims are done: message 1" in account.wrong


@pytest.mark.parametrize("other", [replace(EARLIER_MAIL, link="http://x"), replace(EARLIER_MAIL, is_authentic=False)])
def test_another_link_in_a_copy_is_wrong(other: Copy) -> None:
    account = settle(evidence(copies=[other, MAIL], claims=[SPENT, DONE], faults=[KILL]))

    assert account.figures["messages with differing links"] == 1
    assert account.wrong[0].startswith("the link differs or is not ours in message 1")


def test_a_message_that_was_seen_and_is_nowhere_is_wrong() -> None:
    account = settle(evidence(seen_ids={1, 2}))

    assert account.figures["messages unaccounted for"] == 1
    assert account.wrong == ["message 2 was seen and is nowhere"]


def test_an_attempt_that_only_an_outage_of_postgresql_explains_is_wrong() -> None:
    outage = AppliedFault("postgres-kill", "postgres", "parent", began=3.0, ended=5.0)

    account = settle(evidence(claims=[SPENT, DONE], faults=[outage]))

    assert account.figures["attempts spent by outages"] == 1
    assert account.wrong[0].startswith("an outage spent an attempt: message 1, attempt 1 by worker-1")


def test_an_attempt_without_any_cause_is_wrong() -> None:
    account = settle(evidence(claims=[SPENT, DONE]))

    assert account.figures["attempts spent without a cause"] == 1
    assert account.wrong[0].startswith("an attempt was spent without a cause: message 1")


def test_a_refusal_costs_an_attempt_only_while_the_mail_server_refuses() -> None:
    refused = replace(SPENT, reason="refused: 451 fault", maybe_accepted=False)
    fault = AppliedFault("mail-451", "mail", "parent", began=2.0, ended=3.0)

    with_fault = settle(evidence(claims=[refused, DONE], faults=[fault]))
    without = settle(evidence(claims=[refused, DONE]))

    assert (len(with_fault.wrong), len(without.wrong)) == (0, 1)


def test_never_quiet_is_wrong() -> None:
    account = settle(evidence(seconds_to_quiet=None))

    assert account.figures["seconds to quiet"] == "never"
    assert account.wrong == ["it did not become quiet: messages are neither done nor dead"]


def test_a_signup_without_an_answer_is_wrong() -> None:
    account = settle(evidence(signups=[ALICE, Signup("bob", "bob@example.com", answers={"ConnectError": 9})]))

    assert account.wrong == ["bob was never answered: {'ConnectError': 9}"]


@pytest.mark.parametrize("answer", ["500", "422", FIRST_REPETITION])
def test_an_unexpected_answer_is_wrong(answer: str) -> None:
    account = settle(evidence(signups=[replace(ALICE, answers={answer: 1, "201": 1})]))

    assert account.wrong == [f"answers that no user should get: {{'{answer}': 1}}"]


def test_a_dead_letter_is_counted_and_its_user_lost() -> None:
    account = settle(evidence(messages={1: Message(1, "alice", "dead")}, copies=[], claims=[]))

    assert (account.figures["dead letters"], account.figures["lost"]) == (1, 1)
    assert "message 1 is a dead letter" in account.remarks


def test_faults_and_exits_are_counted_by_their_kinds() -> None:
    account = settle(evidence(faults=[KILL, KILL], exits=[Exit("worker-1", -9, 4.0), Exit("worker-2", -9, 5.0)]))

    assert account.faults == {"worker-kill": 2}
    assert account.remarks == ["answers: 201 (1)", "exit codes: worker -9 (2 times)"]
