"""Work that was appended with a dedup key is done after its append, whatever it meets.

`pytest -s` prints the counterexamples.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.model.dedup.state import (
    AT_WORK,
    COMMITTED,
    DEAD,
    LATER,
    OVER,
    RELEASED,
    RUNNING,
    SOON,
    WAITING,
    DedupConfig,
    DedupGuard,
    DedupStep,
    DedupWorld,
)
from tests.model.dedup.steps import Check, dedup_steps, explore_dedup


def _is_done_after_it(_before: DedupWorld, _step: DedupStep, after: DedupWorld, _config: DedupConfig) -> bool:
    """Each append that is committed has been served, or there is a row whose work has read it or will."""
    ahead = -1
    for number, row in enumerate(after.rows):
        if row.status in (WAITING, RELEASED, DEAD):
            ahead = max(ahead, row.data)
        elif row.status == RUNNING:
            ahead = max(ahead, after.worker.data if after.worker.row == number else row.data)
    return all(each.data in after.served or each.data <= ahead for each in after.appenders if each.phase == COMMITTED)


def _waits_once(_before: DedupWorld, _step: DedupStep, after: DedupWorld, _config: DedupConfig) -> bool:
    return sum(row.status == WAITING and row.has_key for row in after.rows) <= 1


def _comes_in_time(before: DedupWorld, step: DedupStep, after: DedupWorld, _config: DedupConfig) -> bool:
    pairs = zip(before.rows, after.rows, strict=False)
    return step.name != "commit" or all(new.due <= old.due for old, new in pairs)


def _can_be_released(_before: DedupWorld, _step: DedupStep, after: DedupWorld, config: DedupConfig) -> bool:
    """A row that is at work can be released: nothing that waits has the key that it would take back."""
    return after.worker.phase != AT_WORK or any(step.name == "release" for step, _ in dedup_steps(after, config))


AFTER: Final = "for each append that is committed there is work, done or ahead, that has read it or will"
SINGLE: Final = "one message with the key waits for its first claim"
IN_TIME: Final = "an append never makes the one before it wait longer"
RELEASABLE: Final = "a message can be released, whatever was appended meanwhile"
PROPERTIES: Final[dict[str, Check]] = {
    AFTER: _is_done_after_it,
    SINGLE: _waits_once,
    IN_TIME: _comes_in_time,
    RELEASABLE: _can_be_released,
}
THREE: Final = DedupConfig()
TWO: Final = DedupConfig(dues=(SOON, LATER))
SIZES: Final = {"three-appends": THREE, "two-and-an-operator": TWO._replace(orders=2)}


@pytest.mark.parametrize("config", [*SIZES.values()], ids=[*SIZES])
def test_the_rules_hold_and_every_message_ends(config: DedupConfig) -> None:
    explored = explore_dedup(config, PROPERTIES)

    print(f"\n{len(explored.onward):,} worlds")  # noqa: T201 - for pytest -s
    assert not explored.broken, "\n".join(map(str, explored.broken))
    stuck = explored.without_way_to(lambda world: all(row.status in (DEAD, *OVER) for row in world.rows))
    assert not stuck, "\n".join(explored.way_to(stuck[0]))


BROKEN: Final = [
    (DedupGuard.CLAIM_FREES_KEY, AFTER, TWO),
    (DedupGuard.APPEND_UPDATES, AFTER, TWO),
    (DedupGuard.NEWER_PAYLOAD, AFTER, TWO),
    (DedupGuard.EARLIER_DUE, IN_TIME, TWO),
    (DedupGuard.CLAIM_WAITS, AFTER, TWO),
    (DedupGuard.CLAIM_READS, AFTER, TWO),
    (DedupGuard.FREED_FOR_GOOD, RELEASABLE, TWO),
    (DedupGuard.UNIQUE, SINGLE, TWO),
]


@pytest.mark.parametrize(("guard", "broken", "config"), BROKEN, ids=[guard.name for guard, _, _ in BROKEN])
def test_without_the_guard_a_rule_breaks(guard: DedupGuard, broken: str, config: DedupConfig) -> None:
    explored = explore_dedup(config._replace(without=frozenset({guard})), {broken: PROPERTIES[broken]})

    assert explored.broken, f"{guard.value!r} is not needed for: {broken}"
    print(f"\nwithout {guard.value!r}\n{explored.broken[0]}")  # noqa: T201 - for pytest -s


def test_every_guard_has_its_counterexample() -> None:
    assert set(DedupGuard) == {guard for guard, _, _ in BROKEN}
