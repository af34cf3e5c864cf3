"""The rules about refusals by policy: an outage makes no dead letter, and every message ends.

`pytest -s` prints the counterexamples.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.model.policy.state import (
    BEFORE,
    DEAD,
    DISCARDED,
    DONE,
    NOTED,
    PENDING,
    RUNNING,
    TO_FAIL,
    TO_RELEASE,
    PolicyConfig,
    PolicyGuard,
    PolicyWorld,
)
from tests.model.policy.steps import Check, PolicyStep, explore_policy
from tests.model.search import Found


def _accounts(_before: PolicyWorld, _step: PolicyStep, after: PolicyWorld, _config: PolicyConfig) -> bool:
    return all(row.attempt == row.account + (row.status == RUNNING) >= 0 for row in after.messages)


def _owes_nothing(_before: PolicyWorld, _step: PolicyStep, after: PolicyWorld, _config: PolicyConfig) -> bool:
    return not after.is_open or not any(row.owed for row in after.messages if row.status in (PENDING, DEAD))


def _turns_no_circle(_before: PolicyWorld, _step: PolicyStep, after: PolicyWorld, _config: PolicyConfig) -> bool:
    return all(row.given_back <= 1 for row in after.messages)


def _counts_for_cause(before: PolicyWorld, _step: PolicyStep, after: PolicyWorld, _config: PolicyConfig) -> bool:
    rows = zip(before.messages, after.messages, strict=True)
    return not any(old.met == BEFORE and old.noted != new.noted == NOTED for old, new in rows)


def _revives_for_cause(before: PolicyWorld, step: PolicyStep, after: PolicyWorld, _config: PolicyConfig) -> bool:
    revived = [
        old for old, new in zip(before.messages, after.messages, strict=True) if old.status == DEAD != new.status
    ]
    return step.name in ("retry", "discard", "arrive") or all(old.owed for old in revived)


def _ends_with_an_accepted_mail(
    before: PolicyWorld, step: PolicyStep, after: PolicyWorld, _config: PolicyConfig
) -> bool:
    return not before.is_open or after.is_open or (step.name == "record" and step.remark.startswith("accepted"))


def _spends_for_cause(before: PolicyWorld, step: PolicyStep, _after: PolicyWorld, _config: PolicyConfig) -> bool:
    if step.name != "read" or not before.is_open:
        return True
    return step.remark == (TO_FAIL if before.messages[step.message].last == BEFORE else TO_RELEASE)


ACCOUNT: Final = "attempts are those that were spent and not given back"
OWED: Final = "while an outage is declared, no message has spent an attempt on it"
CIRCLE: Final = "of a server that refuses the same few for ever, each of them gets something back once"
COUNTS: Final = "a refusal counts only if nothing was accepted since the message's very first one"
REVIVED: Final = "a dead letter comes back only if it died of the outage"
STAYS: Final = "an outage by policy ends with an accepted mail"
SPENDS: Final = "in an outage by policy only who was refused before and after another was accepted spends an attempt"
ALWAYS: Final[dict[str, Check]] = {
    ACCOUNT: _accounts,
    OWED: _owes_nothing,
    COUNTS: _counts_for_cause,
    REVIVED: _revives_for_cause,
    STAYS: _ends_with_an_accepted_mail,
    SPENDS: _spends_for_cause,
}
ONE_MIND: Final[dict[str, Check]] = {**ALWAYS, CIRCLE: _turns_no_circle}

SIZES: Final = {
    "two-bad-ones-and-a-good-one": PolicyConfig(),
    "three-bad-ones": PolicyConfig(good=1, bad=3, enough=3),
    "a-retry": PolicyConfig(max_retries=1),
    "a-fault": PolicyConfig(faults=1),
    "two-faults": PolicyConfig(faults=2),
    "unknown-users": PolicyConfig(unknown_users=True, faults=1),
    "an-operator": PolicyConfig(orders=1),
    "a-server-that-changes-its-mind": PolicyConfig(good=2, bad=1, switches=2),
}


@pytest.fixture(scope="module", params=[*SIZES])
def explored(request: pytest.FixtureRequest) -> Found[PolicyWorld]:
    config = SIZES[request.param]
    exploration = explore_policy(config.initial(), config, ALWAYS if config.switches else ONE_MIND)
    print(f"\n{request.param}: {len(exploration.onward):,} worlds")  # noqa: T201 - for pytest -s
    return exploration


def test_the_rules_hold(explored: Found[PolicyWorld]) -> None:
    assert not explored.broken, "\n".join(map(str, explored.broken))


def test_every_message_ends_and_none_blocks_the_others(explored: Found[PolicyWorld]) -> None:
    """Where the server refuses everybody for ever nothing can end: those worlds are left out."""

    def is_over(world: PolicyWorld) -> bool:
        return world.refuses_all or all(row.status in (DONE, DEAD, DISCARDED) for row in world.messages)

    stuck = explored.without_way_to(is_over)

    assert not stuck, stuck[0]


def test_refusing_every_recipient_makes_no_dead_letter() -> None:
    config = PolicyConfig(good=3, bad=0, enough=3, workers=3)

    explored = explore_policy(config.initial(refuses_all=True), config, ALWAYS)

    assert not explored.broken, "\n".join(map(str, explored.broken))
    alive = explored.without_way_to(lambda world: world.is_open and all(not row.owed for row in world.messages))
    assert not alive, alive[0]


def test_fewer_than_are_enough_spend_their_attempts() -> None:
    config = PolicyConfig(good=2, bad=0, enough=3, max_retries=1)

    explored = explore_policy(config.initial(refuses_all=True), config, ALWAYS)

    assert not any(world.is_open for world in explored.onward)
    assert not explored.without_way_to(lambda world: all(row.status == DEAD for row in world.messages))


@pytest.mark.parametrize(
    ("guard", "broken", "config"),
    [
        (PolicyGuard.FIRST_REFUSAL, CIRCLE, PolicyConfig()),
        (PolicyGuard.SAME_LIFE, ACCOUNT, PolicyConfig(orders=1)),
        (PolicyGuard.SAME_LIFE, REVIVED, PolicyConfig(unknown_users=True, max_retries=1)),
        (PolicyGuard.WRITTEN, ACCOUNT, PolicyConfig(faults=1)),
        (PolicyGuard.FIRST_RELEASE, COUNTS, PolicyConfig(bad=3)),
        (PolicyGuard.RELEASE, SPENDS, PolicyConfig()),
        (PolicyGuard.SPEND, SPENDS, PolicyConfig(max_retries=1)),
        (PolicyGuard.GIVE_BACK_LATE, OWED, PolicyConfig(bad=3)),
        (PolicyGuard.STAYS_OPEN, STAYS, PolicyConfig()),
    ],
    ids=lambda value: value.name if isinstance(value, PolicyGuard) else "",
)
def test_without_the_guard_a_rule_breaks(guard: PolicyGuard, broken: str, config: PolicyConfig) -> None:
    config = config._replace(without=frozenset({guard}))

    explored = explore_policy(config.initial(), config, {broken: ONE_MIND[broken]})

    assert explored.broken, f"{guard.value!r} is not needed for: {broken}"
    print(f"\nwithout {guard.value!r}\n{explored.broken[0]}")  # noqa: T201 - for pytest -s
