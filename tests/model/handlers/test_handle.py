"""Handlers: at least once, alone while their worker is in time, and what they append exactly once.

`pytest -s` prints the counterexamples.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.model.handlers.handle_state import (
    APPENDED,
    APPENDS_WHAT_IS_REFUSED,
    BEFORE_RESULT,
    DEAD,
    DONE,
    ENDS,
    GONE,
    LOST,
    NEVER_ENDS,
    RUNNING,
    HandleConfig,
    HandleGuard,
    HandleStep,
    HandleWorld,
)
from tests.model.handlers.handle_steps import Check, explore_handle


def _calls_for_cause(before: HandleWorld, step: HandleStep, after: HandleWorld, _config: HandleConfig) -> bool:
    if step.name != "begin":
        return True
    pairs = zip(before.tasks, after.tasks, strict=True)
    return all(old.call_owed or not old.calls for old, new in pairs if new != old)


def _works_alone(_before: HandleWorld, _step: HandleStep, after: HandleWorld, _config: HandleConfig) -> bool:
    return all(
        after.tasks[place.message].token == number or place.unsure
        for number, place in enumerate(after.places)
        if place.phase in BEFORE_RESULT and not place.late
    )


def _changes_its_own(before: HandleWorld, step: HandleStep, after: HandleWorld, _config: HandleConfig) -> bool:
    if step.name not in ("ack", "fail", "release", "renew"):
        return True
    number = int(step.who.rpartition(" ")[2])
    pairs = zip(before.tasks, after.tasks, strict=True)
    return all(
        old.token == number for old, new in pairs if (old.status, old.lease_over) != (new.status, new.lease_over)
    )


def _reaps_for_cause(before: HandleWorld, step: HandleStep, _after: HandleWorld, _config: HandleConfig) -> bool:
    if step.name != "reap_running":
        return True
    token = before.tasks[int(step.who[1:])].token
    return token == GONE or (token >= 0 and before.places[token].late)


def _accounts(_before: HandleWorld, _step: HandleStep, after: HandleWorld, _config: HandleConfig) -> bool:
    return all(
        task.attempt == task.spent + (task.status in (RUNNING, DONE)) for task in after.tasks if task.status != DEAD
    )


def _appends_once(_before: HandleWorld, _step: HandleStep, after: HandleWorld, _config: HandleConfig) -> bool:
    halfway = {place.message for place in after.places if place.phase == APPENDED}
    return all(
        task.children == (task.status == DONE) or (number in halfway and task.children == 1)
        for number, task in enumerate(after.tasks)
    )


def _loses_two_places(_before: HandleWorld, _step: HandleStep, after: HandleWorld, _config: HandleConfig) -> bool:
    return all(task.lates <= 2 for task in after.tasks)


CALLED: Final = "a second call needs a cause: it raised, was late, or its worker died, froze or was ended"
ALONE: Final = "a worker in time that has a message holds it alone"
FENCE: Final = "ack, fail, release and renew change a row only under their own claim"
BLAME: Final = "a claim is reaped only when its worker died or froze past its lease"
ACCOUNT: Final = "attempts are those that ended in a failure, and the present one"
CHILDREN: Final = "what a handler appends is there once if its message is done, and not at all if it is not"
LATES: Final = "a handler that is late twice is not called again"
PROPERTIES: Final[dict[str, Check]] = {
    CALLED: _calls_for_cause,
    ALONE: _works_alone,
    FENCE: _changes_its_own,
    BLAME: _reaps_for_cause,
    ACCOUNT: _accounts,
    CHILDREN: _appends_once,
    LATES: _loses_two_places,
}

ONE: Final = HandleConfig()
TWO_FAULTS: Final = HandleConfig(faults=2)
NEVER: Final = HandleConfig(kinds=(NEVER_ENDS, ENDS), workers=(2,), max_retries=2, faults=0)
REFUSED: Final = HandleConfig(kinds=(APPENDS_WHAT_IS_REFUSED,))
ENDED: Final = HandleConfig(shutdowns=1, faults=0)
SIZES: Final = {
    "two-faults": TWO_FAULTS,
    "one-never-ends": NEVER,
    "what-it-appends-is-refused": REFUSED,
    "shutdown": HandleConfig(shutdowns=1),
}
LONG: Final = {
    "three-faults": HandleConfig(faults=3, max_retries=2),
    "one-never-ends-and-a-fault": NEVER._replace(faults=1, max_retries=1),
    "two-messages": HandleConfig(kinds=(ENDS, ENDS)),
}
CONFIGS: Final = [
    *(pytest.param(config, id=name) for name, config in SIZES.items()),
    *(pytest.param(config, id=name, marks=pytest.mark.long) for name, config in LONG.items()),
]


def over(world: HandleWorld) -> bool:
    return all(task.status in (DONE, DEAD) for task in world.tasks)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_rules_hold_and_every_message_ends(config: HandleConfig) -> None:
    explored = explore_handle(config, PROPERTIES)

    print(f"\n{len(explored.onward):,} worlds")  # noqa: T201 - for pytest -s
    assert not explored.broken, "\n".join(map(str, explored.broken))
    stuck = explored.without_way_to(over)
    assert not stuck, "\n".join(explored.way_to(stuck[0]))


def test_handler_that_never_ends_leaves_places_for_others() -> None:
    explored = explore_handle(NEVER, {})

    undone = explored.without_way_to(lambda world: world.tasks[1].status in (DONE, DEAD))

    assert not undone
    assert any(place.phase == LOST for world in explored.onward for place in world.places)


BROKEN: Final = [
    (HandleGuard.BEGIN_UNTIL, CALLED, TWO_FAULTS),
    (HandleGuard.RENEW, BLAME, ONE._replace(faults=0)),
    (HandleGuard.RENEW, CALLED, ONE._replace(faults=0)),
    (HandleGuard.RENEW, ALONE, ONE._replace(faults=0)),
    (HandleGuard.RENEW_TOKEN, FENCE, TWO_FAULTS),
    (HandleGuard.RENEW_TOKEN, ALONE, ONE),
    (HandleGuard.LATE_TWICE, LATES, NEVER),
    (HandleGuard.ACK_TOKEN, FENCE, ONE),
    (HandleGuard.APPENDS_IN_ACK, CHILDREN, ONE),
    (HandleGuard.APPENDS_FROM_ACK, CHILDREN, ONE),
    (HandleGuard.APPENDS_REFUSED, BLAME, REFUSED),
    (HandleGuard.SHUTDOWN_RELEASES, BLAME, ENDED),
]
STUCK: Final = [(HandleGuard.RENEW_UNTIL, NEVER), (HandleGuard.EXIT, NEVER)]


@pytest.mark.parametrize(("guard", "broken", "config"), BROKEN, ids=[guard.name for guard, _, _ in BROKEN])
def test_without_the_guard_a_rule_breaks(guard: HandleGuard, broken: str, config: HandleConfig) -> None:
    explored = explore_handle(config._replace(without=frozenset({guard})), {broken: PROPERTIES[broken]})

    assert explored.broken, f"{guard.value!r} is not needed for: {broken}"
    print(f"\nwithout {guard.value!r}\n{explored.broken[0]}")  # noqa: T201 - for pytest -s


@pytest.mark.parametrize(("guard", "config"), STUCK, ids=[guard.name for guard, _ in STUCK])
def test_without_the_guard_a_message_never_ends(guard: HandleGuard, config: HandleConfig) -> None:
    explored = explore_handle(config._replace(without=frozenset({guard})), {})

    stuck = explored.without_way_to(over)

    assert stuck
    print(f"\nwithout {guard.value!r} nothing leads on from\n" + "\n".join(explored.way_to(stuck[0])))  # noqa: T201 - for pytest -s


def test_every_guard_has_its_counterexample() -> None:
    assert set(HandleGuard) == {guard for guard, *_ in (*BROKEN, *STUCK)}
