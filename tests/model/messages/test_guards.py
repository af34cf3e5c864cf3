"""Each clause of the protocol is needed: without it the exploration finds a counterexample.

`pytest -s` prints them. With all clauses in place the same properties hold in worlds at least as large
(test_protocol.py).
"""

from __future__ import annotations

import pytest

from tests.model.explore import explore
from tests.model.messages.guards import Guard
from tests.model.messages.properties import (
    ACCOUNT,
    AMNESIA,
    BLAME,
    BOUNDED,
    COLUMNS,
    COPY,
    FENCE,
    FINAL,
    HOLDER,
    MAILS,
    NOT_EARLY,
    PUSHES,
    REPUBLISH,
    WAITS,
    WASTE,
    Property,
)
from tests.model.messages.state import DEAD, DONE, Config

BROKEN = [
    (Guard.TAKE_DUE, NOT_EARLY, Config()),
    (Guard.LOCK_TAKE, PUSHES, Config(faults=0)),
    (Guard.ONE_CONNECTION, WAITS, Config()),
    (Guard.NO_PUSH_REPEAT, PUSHES, Config()),
    (Guard.EPOCH_IN_MULTI, AMNESIA, Config()),
    (Guard.EPOCH_ON_ROW, AMNESIA, Config()),
    (Guard.CLAIM_STATUS, COPY, Config()),
    (Guard.CLAIM_STATUS, FINAL, Config()),
    (Guard.CLAIM_PENDING, WASTE, Config()),
    (Guard.CLAIM_ANY_GENERATION, WASTE, Config()),
    (Guard.CLAIM_DUE, NOT_EARLY, Config()),
    (Guard.CLAIM_COUNTS, ACCOUNT, Config(faults=0)),
    (Guard.CLAIM_WAITS_FOR_LOCK, WAITS, Config(faults=0)),
    (Guard.CLAIM_WAITS_FOR_LOCK, REPUBLISH, Config(faults=0)),
    (Guard.FIND_OWN_CLAIM, BLAME, Config()),
    (Guard.FIND_WAITS_FOR_LOCK, BLAME, Config()),
    (Guard.LEASE_CHECK_BEFORE_DOT, COPY, Config()),
    (Guard.SILENCE_SPENDS, MAILS, Config()),
    (Guard.RENEW_FIRST, BLAME, Config(relays=1)),
    (Guard.RENEW_FIRST, COPY, Config(relays=1)),
    (Guard.RENEW_ANSWERED, BLAME, Config(faults=2, relays=1)),
    (Guard.RENEW_TOKEN, HOLDER, Config(faults=2, relays=1)),
    (Guard.RENEW_TOKEN, FENCE, Config(faults=2, relays=1)),
    (Guard.ACK_TOKEN, FENCE, Config()),
    (Guard.ACK_IGNORES_LEASE, COPY, Config()),
    (Guard.ACK_REPEATED, COPY, Config()),
    (Guard.FAIL_TOKEN, COPY, Config(max_retries=2, relays=1)),
    (Guard.FAIL_DEAD, BOUNDED, Config(faults=0)),
    (Guard.RELEASE_TOKEN, HOLDER, Config(faults=2, relays=1)),
    (Guard.RELEASE_GIVES_BACK, ACCOUNT, Config()),
    (Guard.DISCARD_CLAIMS_TOKEN, FENCE, Config()),
    (Guard.DISCARD_CLAIMS_TOKEN, HOLDER, Config()),
    (Guard.REAP_RUNNING_LEASE, COPY, Config(faults=0)),
    (Guard.REAP_RUNNING_DEAD, BOUNDED, Config(max_retries=0)),
    (Guard.REAP_RUNNING_GRACE, BLAME, Config()),
    (Guard.REAP_RUNNING_GRACE, COPY, Config()),
    (Guard.ROWS_BEFORE_LISTS, REPUBLISH, Config()),
    (Guard.READ_LISTS, REPUBLISH, Config(faults=0)),
    (Guard.TWO_ROUNDS, REPUBLISH, Config(faults=0)),
    (Guard.ROUNDS_APART, REPUBLISH, Config(faults=0)),
    (Guard.RENEW_STATUS, COLUMNS, Config()),
    (Guard.RENEW_GENERATION, AMNESIA, Config()),
    (Guard.RENEW_GENERATION, REPUBLISH, Config()),
    (Guard.RETURN_STATUS, COPY, Config()),
    (Guard.RETURN_GENERATION, REPUBLISH, Config()),
    (Guard.NEW_GENERATION, WAITS, Config()),
    (Guard.NEW_GENERATION, REPUBLISH, Config()),
    (Guard.RETRY_STATUS, COPY, Config(faults=0, max_retries=0, orders=1)),
    (Guard.DISCARD_STATUS, HOLDER, Config(faults=0, max_retries=0, orders=1)),
]
REAPERS = (Guard.PUBLISHED_LEASE, Guard.REAP_RUNNING)
# The locks that the transaction holds make this one a second line of defence: see its own test.
SPARE = (Guard.MARK_STATUS_PENDING,)


@pytest.mark.parametrize(
    ("guard", "broken", "config"), BROKEN, ids=[f"{guard.name}-{config.faults}-faults" for guard, _, config in BROKEN]
)
def test_without_the_guard_a_property_breaks(guard: Guard, broken: Property, config: Config) -> None:
    config = config._replace(without=frozenset({guard}))

    explored = explore(config, [broken], stop_at=broken)

    assert broken in explored.violations, f"{guard.value!r} is not needed for: {broken.text}"
    print(f"\nwithout {guard.value!r}, {explored}\n{explored.counterexample(broken)}")  # noqa: T201 - for pytest -s


@pytest.mark.parametrize("guard", REAPERS, ids=lambda guard: guard.name)
def test_without_its_reaper_a_message_is_stuck(guard: Guard) -> None:
    explored = explore(Config(max_retries=0, without=frozenset({guard})), [])

    stuck = explored.without_way_to(lambda world: all(row.status in (DONE, DEAD) for row in world.rows))

    assert stuck
    print(f"\nwithout {guard.value!r}, {explored}\nstuck in {len(stuck)} worlds\n{explored.trace(stuck[0])}")  # noqa: T201 - for pytest -s


def test_every_guard_has_its_counterexample() -> None:
    assert set(Guard) == {guard for guard, _, _ in BROKEN} | set(REAPERS) | set(SPARE)


@pytest.mark.long
def test_status_of_mark_published_is_needed_once_the_locks_are_lost() -> None:
    neither = frozenset({Guard.MARK_STATUS_PENDING, Guard.ONE_CONNECTION})

    locks_kept = explore(Config(without=frozenset({Guard.MARK_STATUS_PENDING})))
    locks_lost = explore(Config(max_retries=0, without=frozenset({Guard.ONE_CONNECTION})), [COPY])
    unguarded = explore(Config(max_retries=0, without=neither), [COPY], stop_at=COPY)

    assert not locks_kept.violations
    assert not locks_lost.violations
    assert COPY in unguarded.violations
    print(f"\n{unguarded}\n{unguarded.counterexample(COPY)}")  # noqa: T201 - for pytest -s


@pytest.mark.long
def test_token_of_ack_guards_the_fence_and_not_the_promise() -> None:
    """Only an accepted mail is ever acknowledged: an ack under another's claim is rude, but true."""
    explored = explore(Config(without=frozenset({Guard.ACK_TOKEN})))

    assert set(explored.violations) == {FENCE, HOLDER}
