"""A destination's limits hold for all workers together, and a place comes free by itself.

`pytest -s` prints the counterexamples.
"""

from __future__ import annotations

import pytest

from tests.model.destinations.limit import LimitGuard, explore_limit
from tests.model.destinations.places import SENDING, PlaceGuard, PlacesWorld, explore_places


def test_limit_is_passed_by_its_burst_at_most() -> None:
    explored = explore_limit()

    print(f"\n{len(explored.onward):,} worlds")  # noqa: T201 - for pytest -s
    assert not explored.broken, explored.broken[0]


@pytest.mark.parametrize(
    "guard",
    [
        LimitGuard.SMALLER_BURST,
        LimitGuard.TOKENS_EXPIRE,
        pytest.param(LimitGuard.CLOCK_AFTER_LOCK, marks=pytest.mark.long),
    ],
    ids=lambda guard: guard.name,
)
def test_without_the_guard_the_limit_is_passed(guard: LimitGuard) -> None:
    explored = explore_limit(guard)

    assert explored.broken, f"{guard.value!r} is not needed"
    print(f"\nwithout {guard.value!r}\n{explored.broken[0]}")  # noqa: T201 - for pytest -s


def test_places_are_never_passed_and_always_come_free() -> None:
    explored = explore_places()

    print(f"\n{len(explored.onward):,} worlds")  # noqa: T201 - for pytest -s
    assert not explored.broken, explored.broken[0]
    assert not explored.without_way_to(is_in_place)


def is_in_place(world: PlacesWorld) -> bool:
    return any(worker.phase == SENDING for worker in world.workers)


@pytest.mark.parametrize("guard", [PlaceGuard.LOCKS_ROW, PlaceGuard.SNAPSHOT_AFTER_LOCK], ids=lambda each: each.name)
def test_without_the_guard_more_messages_are_in_hand_than_there_are_places(guard: PlaceGuard) -> None:
    explored = explore_places(guard, faults=0)

    assert explored.broken, f"{guard.value!r} is not needed"
    print(f"\nwithout {guard.value!r}\n{explored.broken[0]}")  # noqa: T201 - for pytest -s


def test_without_the_claim_in_its_entry_a_place_is_lost() -> None:
    guard = PlaceGuard.ENTRY_NAMES_CLAIM
    explored = explore_places(guard, messages=1)

    stuck = explored.without_way_to(is_in_place)

    assert stuck
    print(f"\nwithout {guard.value!r} nothing leads on from\n" + "\n".join(explored.way_to(stuck[0])))  # noqa: T201 - for pytest -s
