"""The checks of the run's own tasks report each kind of error."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checking.account import Account
from tests.chaos.checking.evidence import AppliedFault, Call, Claim, Evidence, Job, Message
from tests.chaos.checking.jobs import settle_jobs

COUNT = Job(1, "chaos:count", 11)
SLOW = Job(2, "chaos:slow", 12)
DOWN = Job(3, "chaos:down", 13)
CALL = Call(2, "a key", arrived_at=10.0)
DONE = Claim(12, "worker-1", attempt=2, began=9.9, ended=19.5, end="done", ended_by="worker-1")
LOST = Claim(12, "worker-1", attempt=1, began=1.0, ended=8.0, end="spent", ended_by="relay-1", reason="why")
EARLIER_CALL = replace(CALL, arrived_at=1.1)
KILL = AppliedFault("worker-kill", "worker-1", "parent", began=4.0, ended=4.0)


def account_of(**changes: Any) -> Account:
    """Return the account of three jobs of which all is well, with some of it changed."""
    values: dict[str, Any] = {
        "signups": [],
        "users": {},
        "messages": {11: Message(11, None, "done"), 12: Message(12, None, "done"), 13: Message(13, None, "pending")},
        "seen_ids": set(),
        "claims": [DONE],
        "copies": [],
        "faults": [],
        "exits": [],
        "seconds_to_answers": 0.0,
        "seconds_to_quiet": 0.0,
        "jobs": [COUNT, SLOW, DOWN],
        "effects": [1, 2],
        "calls": [CALL],
    }
    account = Account()
    settle_jobs(Evidence(**{**values, **changes}), account)
    return account


def test_jobs_with_one_effect_each_are_right() -> None:
    account = account_of()

    assert (account.wrong, account.figures["Done() jobs"], account.figures["Done() effects"]) == ([], 2, 2)


@pytest.mark.parametrize(("effects", "found"), [([2], 0), ([1, 1, 2], 2)])
def test_an_effect_that_is_missing_or_happened_twice_is_wrong(effects: list[int], found: int) -> None:
    assert account_of(effects=effects).wrong == [f"job 1 (chaos:count) has {found} effects, its message is done"]


@pytest.mark.parametrize("number", [3, 4])
def test_an_effect_of_no_job_is_a_ghost(number: int) -> None:
    wrong = account_of(effects=[1, 2, number]).wrong

    assert wrong == [f"ghost: an effect of job {number}, which was never committed"]


def test_a_request_of_no_job_is_a_ghost() -> None:
    assert account_of(calls=[CALL, replace(CALL, job=4)]).wrong == [
        "ghost: a request for job 4, which was never committed"
    ]


def test_a_slow_job_that_asked_nothing_is_lost() -> None:
    assert account_of(calls=[]).wrong == ["lost: job 2 asked the slow service nothing"]


@pytest.mark.parametrize("fault", [KILL, replace(KILL, kind="postgres-kill", target="postgres")])
def test_a_request_is_repeated_with_a_cause_where_its_worker_died_or_postgresql_was_lost(fault: AppliedFault) -> None:
    account = account_of(calls=[EARLIER_CALL, CALL], claims=[LOST, DONE], faults=[fault])

    assert (account.wrong, account.figures["requests repeated with a cause"]) == ([], 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"claims": [LOST, DONE]},
        {"claims": [LOST, DONE], "faults": [replace(KILL, target="worker-2")]},
        {"claims": [LOST, DONE], "faults": [replace(KILL, began=30.0, ended=30.0)]},
        {"claims": [DONE], "faults": [KILL]},
    ],
    ids=["no fault", "another worker", "another time", "no claim"],
)
def test_a_request_that_is_repeated_for_no_reason_is_wrong(changes: dict[str, Any]) -> None:
    wrong = account_of(calls=[EARLIER_CALL, CALL], **changes).wrong

    assert wrong == ["a request for job 2 was repeated without a cause"]


def test_requests_of_one_message_have_one_key() -> None:
    calls = [replace(EARLIER_CALL, key="another"), CALL]

    assert account_of(calls=calls, claims=[LOST, DONE], faults=[KILL]).wrong == [
        "the requests for job 2 have different keys"
    ]


@pytest.mark.parametrize("status", ["done", "dead", "discarded"])
def test_a_message_for_the_destination_that_is_down_has_to_wait(status: str) -> None:
    messages = {11: Message(11, None, "done"), 12: Message(12, None, "done"), 13: Message(13, None, status)}

    assert account_of(messages=messages).wrong == [f"job 3 for the destination that is down is {status}"]
