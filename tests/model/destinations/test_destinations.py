"""An outage, a pause or a slow server of one destination, in every order: no other is delayed, and nothing is lost.

`pytest -s` prints the counterexamples.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.model.destinations.properties import (
    ACCOUNT,
    CLOSED,
    FOREIGN,
    OPENED,
    PAUSED,
    PROPERTIES,
    QUIET,
    READ,
    SPENT,
    is_served,
)
from tests.model.destinations.state import (
    DONE,
    DOWN,
    HANGS,
    NOWHERE,
    OVER,
    A,
    B,
    C,
    Destination,
    DestinationGuard,
    DestinationsConfig,
    DestinationsWorld,
    name_of,
)
from tests.model.destinations.steps import explore_destinations
from tests.model.search import Found

PAUSE: Final = DestinationsConfig(orders=1)
PAUSE_AND_FAULT: Final = DestinationsConfig(orders=1, faults=1)
OUTAGE: Final = DestinationsConfig(
    tasks=(A, A), destinations=(Destination(DOWN), Destination()), switches=1, not_contacted=True
)
OUTAGE_AND_FAULT: Final = DestinationsConfig(
    tasks=(A,), destinations=(Destination(DOWN), Destination()), switches=1, faults=1, not_contacted=True
)
OTHER_ROWS: Final = DestinationsConfig(tasks=(A, A), rows=(NOWHERE, B), orders=1)
OTHER_ROWS_AND_OUTAGE: Final = DestinationsConfig(
    tasks=(A, A), rows=(NOWHERE, B), destinations=(Destination(DOWN), Destination()), switches=1
)
LOCKS: Final = DestinationsConfig(destinations=(Destination(DOWN), Destination()), orders=1, locks=True)
HUNG: Final = Destination(HANGS)
QUICK: Final = Destination(is_quick=True)
SLOW: Final = DestinationsConfig(tasks=(A, C, A, B), destinations=(HUNG, QUICK, HUNG))
PROBED: Final = Destination(HANGS, is_open=True, is_quick=True)
SLOW_PROBES: Final = DestinationsConfig(tasks=(A, C, B), destinations=(PROBED, QUICK, PROBED))
UNKNOWN_TO_ONE: Final = DestinationsConfig(
    tasks=(A,), rows=(NOWHERE,), destinations=(Destination(DOWN),), knowing=(False, True), switches=1
)
UNKNOWN_TO_ALL: Final = DestinationsConfig(knowing=(False, False))
POISON: Final = DestinationsConfig(tasks=(A, A), destinations=(Destination(),), poisoned=frozenset({0}), arrives=True)
REMOVAL: Final = DestinationsConfig(tasks=(A, A), orders=1, removes=True)

SIZES: Final = {
    "pause-and-fault": PAUSE_AND_FAULT,
    "outage": OUTAGE._replace(not_contacted=False),
    "outage-and-fault": OUTAGE_AND_FAULT,
    "rows-that-name-no-or-another-destination": OTHER_ROWS,
    "locks": LOCKS,
    "two-hang": SLOW,
    "two-probes-hang": SLOW_PROBES,
    "task-unknown-to-one": UNKNOWN_TO_ONE,
    "task-unknown-to-all": UNKNOWN_TO_ALL,
    "message-that-opens-the-breaker-each-time": POISON,
    "removal": REMOVAL,
}
LONG: Final = {
    "outage-in-which-work-is-done-without-its-destination": OUTAGE,
    "rows-that-name-no-or-another-destination-and-an-outage": OTHER_ROWS_AND_OUTAGE,
    "locks-and-the-server-returns": LOCKS._replace(tasks=(A, A), switches=1),
    "two-messages-paused": DestinationsConfig(tasks=(A, A, B), orders=1),
    "outage-and-pause": DestinationsConfig(destinations=(Destination(DOWN), Destination()), switches=1, orders=1),
    "removal-and-fault": DestinationsConfig(tasks=(A, A), orders=1, faults=1, removes=True),
}
CONFIGS: Final = [
    *(pytest.param(config, id=name) for name, config in SIZES.items()),
    *(pytest.param(config, id=name, marks=pytest.mark.long) for name, config in LONG.items()),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_rules_hold_and_every_destination_is_served(config: DestinationsConfig) -> None:
    explored = explore_destinations(config, PROPERTIES)

    print(f"\n{len(explored.onward):,} worlds")  # noqa: T201 - for pytest -s
    assert not explored.broken, "\n".join(map(str, explored.broken))
    for number in range(len(config.destinations)):
        stuck = unserved(explored, config, number)
        assert not stuck, f"{name_of(number)}: {stuck[0]}"


def unserved(explored: Found[DestinationsWorld], config: DestinationsConfig, number: int) -> list[DestinationsWorld]:
    """The worlds from which a destination's messages cannot be over, although its server is up and nobody pauses it.

    Whatever is with the others stays so: a server that is down or hangs, a pause, a lock.
    """
    return explored.without_way_to(lambda world: is_served(world, config, number))


def test_message_that_only_seems_to_find_an_outage_ends_among_others() -> None:
    explored = explore_destinations(POISON, {})

    assert not explored.without_way_to(lambda world: world.messages[0].status in OVER)


def test_task_that_nobody_knows_ends_as_a_dead_letter() -> None:
    explored = explore_destinations(UNKNOWN_TO_ALL, {})

    assert not explored.without_way_to(lambda world: all(row.status in OVER for row in world.messages))
    assert not any(row.status == DONE for world in explored.onward for row in world.messages)


BROKEN: Final = [
    (DestinationGuard.TAKE_OPEN, QUIET, OUTAGE),
    (DestinationGuard.TAKE_PAUSED, QUIET, PAUSE),
    (DestinationGuard.CLAIM_FILLS_IN, PAUSED, OTHER_ROWS),
    (DestinationGuard.CLAIM_CORRECTS, READ, OTHER_ROWS),
    (DestinationGuard.CLAIM_CORRECTS, PAUSED, OTHER_ROWS),
    (DestinationGuard.CLAIM_CORRECTS, OPENED, OTHER_ROWS_AND_OUTAGE),
    (DestinationGuard.CLAIM_KNOWS, FOREIGN, UNKNOWN_TO_ONE),
    (DestinationGuard.READ_AFTER_CLAIM, PAUSED, PAUSE),
    (DestinationGuard.READ_PAUSE, READ, PAUSE),
    (DestinationGuard.READ_PAUSE, PAUSED, PAUSE),
    (DestinationGuard.BEGIN_UNTIL, PAUSED, PAUSE_AND_FAULT._replace(max_retries=1)),
    (DestinationGuard.RELEASE_GIVES_BACK, ACCOUNT, PAUSE),
    (DestinationGuard.CONTACT_CLOSES, CLOSED, OUTAGE),
    (DestinationGuard.COUNT_WRITTEN, SPENT, LOCKS),
    (DestinationGuard.COUNT_OPENINGS, SPENT, OUTAGE._replace(tasks=(A,))),
]
DELAYED: Final = [
    (DestinationGuard.TAKE_EACH, B, DestinationsConfig(orders=1)),
    (DestinationGuard.PROBE_TIMEOUT, A, OUTAGE_AND_FAULT._replace(max_retries=1)),
    (DestinationGuard.NEW_IS_SLOW, B, SLOW),
    (DestinationGuard.SLOW_TOGETHER, B, SLOW),
    (DestinationGuard.PROBE_IS_SLOW, B, SLOW_PROBES),
    (DestinationGuard.NO_PLACE_RELEASES, B, SLOW),
    (DestinationGuard.BREAKER_SKIPS, B, LOCKS),
    (DestinationGuard.REMOVE_ENDS_PAUSE, A, REMOVAL),
]
ENDLESS: Final = [
    (DestinationGuard.UNAVAILABLE_ENDS, POISON),
    (DestinationGuard.UNKNOWN_ENDS, UNKNOWN_TO_ALL),
]


@pytest.mark.parametrize(("guard", "broken", "config"), BROKEN, ids=[guard.name for guard, _, _ in BROKEN])
def test_without_the_guard_a_rule_breaks(guard: DestinationGuard, broken: str, config: DestinationsConfig) -> None:
    explored = explore_destinations(config._replace(without=frozenset({guard})), {broken: PROPERTIES[broken]})

    assert explored.broken, f"{guard.value!r} is not needed for: {broken}"
    print(f"\nwithout {guard.value!r}\n{explored.broken[0]}")  # noqa: T201 - for pytest -s


@pytest.mark.parametrize(("guard", "number", "config"), DELAYED, ids=[guard.name for guard, _, _ in DELAYED])
def test_without_the_guard_a_destination_waits_for_ever(
    guard: DestinationGuard, number: int, config: DestinationsConfig
) -> None:
    config = config._replace(without=frozenset({guard}))
    explored = explore_destinations(config, {})

    stuck = unserved(explored, config, number)

    assert stuck, f"{guard.value!r} is not needed for {name_of(number)}"
    show_way(explored, guard, stuck[0])


@pytest.mark.parametrize(("guard", "config"), ENDLESS, ids=[guard.name for guard, _ in ENDLESS])
def test_without_the_guard_a_message_never_ends(guard: DestinationGuard, config: DestinationsConfig) -> None:
    explored = explore_destinations(config._replace(without=frozenset({guard})), {})

    stuck = explored.without_way_to(lambda world: world.messages[0].status in OVER)

    assert stuck
    show_way(explored, guard, stuck[0])


def show_way(explored: Found[DestinationsWorld], guard: DestinationGuard, stuck: DestinationsWorld) -> None:
    print(f"\nwithout {guard.value!r} nothing leads on from\n" + "\n".join(explored.way_to(stuck)))  # noqa: T201 - for pytest -s


def test_every_guard_has_its_counterexample() -> None:
    shown = {guard for guard, *_ in (*BROKEN, *DELAYED, *ENDLESS)}

    assert set(DestinationGuard) == shown
