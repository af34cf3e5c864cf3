"""Every reachable state of the protocol keeps the promise, whatever dies and in whatever order.

`pytest -s` prints how many states each answer rests on. The broken protocols are in test_guards.py.
"""

from __future__ import annotations

import pytest

from tests.model.explore import Exploration, explore, walk
from tests.model.messages.properties import (
    ACCOUNT,
    AMNESIA,
    BLAME,
    BOUNDED,
    COLUMNS,
    COPY,
    FENCE,
    FINAL,
    GENERATION,
    HOLDER,
    LOST,
    MAILS,
    NOT_EARLY,
    ONE_LIFE,
    PUSHES,
    REPUBLISH,
    WAITS,
    WASTE,
    Property,
)
from tests.model.messages.state import DEAD, DISCARDED, DONE, PENDING, REJECTED, RUNNING, UNWANTED, Config, World

# Two relays, two consumers and one retry, unless it says otherwise. `python -m tests.model` explores what is larger:
# two faults, and two messages with one.
SIZES = {
    "nothing-fails": Config(faults=0),
    "one-fault": Config(faults=1),
    "one-fault-two-retries-one-relay": Config(faults=1, max_retries=2, relays=1),
    "three-faults-one-relay-one-consumer-no-retry": Config(faults=3, relays=1, consumers=1, max_retries=0),
    "operator": Config(faults=1, max_retries=0, orders=1),
    "two-messages-nothing-fails": Config(messages=2, faults=0, max_retries=0),
}
# The others have a fault or an operator more than these.
SHORT = ("nothing-fails", "one-fault", "two-messages-nothing-fails")
STEPS = {
    *("take_batch", "push", "mark_published", "commit", "rollback"),
    *("reap_running", "find_lease_expired", "read_lists", "renew_found", "return_missing", "delete_orphans"),
    *("pop", "claim", "find_own_claim", "prepare", "send", "renew_claim"),
    *("ack", "fail", "release", "discard_claims"),
    *("retry", "discard"),
    *("becomes_due", "lease_ends", "deadline_passes", "commit_lands", "commit_fails"),
    *("crash", "stand_still", "redis_wiped", "redis_restarted", "redis_restored", "postgres_outage"),
}


# Of the module, not of the session: one exploration at a time is in memory.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(config, id=name, marks=() if name in SHORT else pytest.mark.long) for name, config in SIZES.items()
    ],
)
def explored(request: pytest.FixtureRequest) -> Exploration:
    return explore(request.param)


def holds(explored: Exploration, *properties: Property) -> None:
    print(f"\n{explored}: {'; '.join(each.text for each in properties)}")  # noqa: T201 - for pytest -s
    for each in properties:
        assert each not in explored.violations, explored.counterexample(each)


def over(world: World) -> bool:
    return all(row.status in (DONE, DEAD, DISCARDED) for row in world.rows)


def test_each_message_can_still_reach_done_or_dead_without_help(explored: Exploration) -> None:
    stuck = explored.without_way_to(over)

    print(f"\n{explored}: done or dead can be reached from each")  # noqa: T201 - for pytest -s
    assert not stuck, explored.trace(stuck[0])


def test_each_message_with_an_attempt_left_can_still_be_delivered(explored: Exploration) -> None:
    def hopeless(world: World) -> bool:
        """Return whether a message is given up, or its last claim is no longer on its way to be accepted."""
        refused = any(consumer.phase in (REJECTED, UNWANTED) for consumer in world.consumers)
        return any(
            row.status in (DEAD, DISCARDED)
            or row.attempt > explored.config.max_retries
            or (row.status == RUNNING and refused)
            for row in world.rows
        )

    undeliverable = explored.without_way_to(lambda world: all(row.status == DONE for row in world.rows))
    lost = [number for number in undeliverable if not hopeless(explored.worlds[number])]

    assert not lost, explored.trace(lost[0])


def test_no_interleaving_loses_a_message(explored: Exploration) -> None:
    holds(explored, LOST)


def test_done_never_comes_back(explored: Exploration) -> None:
    holds(explored, FINAL)


def test_attempts_are_bounded_and_spent_by_failure_alone(explored: Exploration) -> None:
    holds(explored, BOUNDED, ACCOUNT, BLAME)


def test_second_mail_needs_one_of_the_causes_that_the_promise_names(explored: Exploration) -> None:
    holds(explored, COPY, MAILS)


def test_each_return_to_pending_is_a_life_with_a_job_id_of_its_own(explored: Exploration) -> None:
    holds(explored, GENERATION, ONE_LIFE)


def test_claim_has_one_holder(explored: Exploration) -> None:
    holds(explored, HOLDER, FENCE, COLUMNS)


def test_message_that_waits_in_redis_is_left_alone(explored: Exploration) -> None:
    holds(explored, REPUBLISH, WAITS, PUSHES, WASTE)


def test_what_redis_lost_is_found_at_once(explored: Exploration) -> None:
    holds(explored, AMNESIA)


def test_no_message_runs_before_it_is_due(explored: Exploration) -> None:
    holds(explored, NOT_EARLY)


def test_without_a_fault_one_mail_is_accepted_and_nothing_is_repaired() -> None:
    explored = explore(SIZES["nothing-fails"])

    assert {0, 1} == {row.mails for world in explored.worlds for row in world.rows}
    assert not {"reap_running", "return_missing", "find_own_claim", "release"} & explored.taken.keys()


def test_every_step_of_the_model_is_taken() -> None:
    explored = explore(Config(faults=1, relays=1, max_retries=0, orders=1), properties=())

    assert set(explored.taken) == STEPS


PUBLISHED = ("relay 0: take_batch", "relay 0: push", "relay 0: mark_published", "relay 0: commit")
POPPED = (*PUBLISHED, "consumer 0: pop")
CLAIMED = (*POPPED, "consumer 0: claim")
FROZEN = (*POPPED, "consumer 0: stand_still: past its time")
MISSING_TWICE = (
    *("message 0: lease_ends", "relay 0: find_lease_expired", "relay 0: read_lists"),
    *("relay 0: find_lease_expired", "relay 0: read_lists", "relay 0: return_missing", "relay 0: delete_orphans"),
)


@pytest.mark.parametrize(
    "cause",
    [
        ("consumer 0: send: accepted", "consumer 0: crash"),
        ("consumer 0: send: accepted", "consumer 0: stand_still: past its time"),
        ("consumer 0: send: accepted, the answer is lost",),
    ],
    ids=["died", "stood-still", "answer-lost"],
)
def test_each_cause_that_the_promise_names_can_end_in_a_second_mail(cause: tuple[str, ...]) -> None:
    if "answer" in cause[0]:
        then = ("consumer 0: fail", "message 0: becomes_due")
    else:
        then = ("message 0: lease_ends", "relay 0: reap_running")
    again = (*PUBLISHED, "consumer 1: pop", "consumer 1: claim", "consumer 1: send: accepted")

    world = walk(Config(faults=1), *CLAIMED, *cause, *then, *again)

    assert world.rows[0].mails == 2


def test_reaper_does_not_count_a_round_before_the_popped_message_is_claimed() -> None:
    with pytest.raises(LookupError, match="return_missing"):
        walk(Config(faults=0), *POPPED, *MISSING_TWICE)


def test_consumer_frozen_between_pop_and_claim_costs_a_round_and_may_still_claim() -> None:
    config = Config(faults=1)

    returned = walk(config, *FROZEN, *MISSING_TWICE).rows[0]
    claimed = walk(config, *FROZEN, *MISSING_TWICE, "consumer 0: claim").rows[0]

    assert (returned.status, returned.generation, returned.attempt) == (PENDING, 1, 0)
    assert (claimed.status, claimed.generation, claimed.attempt, claimed.token) == (RUNNING, 1, 1, 0)


def test_consumer_frozen_between_pop_and_claim_leaves_the_message_to_its_holder() -> None:
    taken = (*PUBLISHED, "consumer 1: pop", "consumer 1: claim", "consumer 0: claim: 0 rows")

    row = walk(Config(faults=1), *FROZEN, *MISSING_TWICE, *taken).rows[0]

    assert (row.status, row.generation, row.attempt, row.token) == (RUNNING, 1, 1, 1)
