"""The record of a message's changes yields its claims."""

from uuid import UUID

import pytest

from tests.chaos.checking.evidence import Claim
from tests.chaos.checking.history import Change, claims_of

TOKEN = UUID(int=1)
BORN = Change(1, 0.0, "api", "insert", "pending", 0, 0, None, None, maybe_accepted=False)
PUBLISHED = BORN._replace(at=1.0, by="relay-1", change="update", status="published")
CLAIMED = PUBLISHED._replace(at=2.0, by="worker-1", status="running", attempt=1, claim_token=TOKEN)


def the_claim(end: Change) -> Claim:
    [claim] = claims_of([BORN, PUBLISHED, CLAIMED, end])
    return claim


def test_an_acknowledged_claim_is_done() -> None:
    claim = the_claim(CLAIMED._replace(at=3.0, change="delete"))

    assert (claim.end, claim.by, claim.began, claim.ended, claim.reason) == ("done", "worker-1", 2.0, 3.0, "")


@pytest.mark.parametrize("accepted", [True, False])
def test_a_claim_that_a_relay_took_back_is_spent_with_its_reason(*, accepted: bool) -> None:
    back = CLAIMED._replace(at=9.0, by="relay-2", status="pending", claim_token=None, reason="why")

    claim = the_claim(back._replace(maybe_accepted=accepted))

    assert (claim.end, claim.ended_by, claim.reason, claim.maybe_accepted) == ("spent", "relay-2", "why", accepted)


def test_an_attempt_given_back_is_not_spent_whatever_an_earlier_failure_said() -> None:
    claim = the_claim(CLAIMED._replace(at=3.0, status="pending", attempt=0, maybe_accepted=True))

    assert (claim.end, claim.maybe_accepted) == ("given back", False)


def test_the_last_attempt_ends_dead() -> None:
    assert the_claim(CLAIMED._replace(at=3.0, status="dead", reason="why")).end == "dead"


def test_a_renewed_lease_is_the_same_claim() -> None:
    renewed = [CLAIMED._replace(at=3.0), CLAIMED._replace(at=4.0)]

    [claim] = claims_of([BORN, PUBLISHED, CLAIMED, *renewed, CLAIMED._replace(at=5.0, change="delete")])

    assert (claim.began, claim.ended, claim.end) == (2.0, 5.0, "done")


def test_a_claim_without_an_end_is_open() -> None:
    [claim] = claims_of([BORN, PUBLISHED, CLAIMED])

    assert claim.end == "open"


def test_each_message_has_claims_of_its_own() -> None:
    changes = [change._replace(message_id=id_) for id_ in (1, 2) for change in (BORN, CLAIMED)]

    assert [(claim.message_id, claim.end) for claim in claims_of(changes)] == [(1, "open"), (2, "open")]
