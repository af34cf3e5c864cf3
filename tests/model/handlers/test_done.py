"""`Done()`: the effects of a preparation happen exactly once, whatever dies, freezes or goes unanswered.

`pytest -s` prints the counterexamples.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.model.handlers.done_state import (
    ACKED,
    COMMITS,
    DEAD,
    DONE,
    EFFECT,
    MAIL,
    PREPARED,
    REFUSED,
    DoneConfig,
    DoneGuard,
    DoneStep,
    DoneWorld,
)
from tests.model.handlers.done_steps import Check, explore_done


def _happens_once(_before: DoneWorld, _step: DoneStep, after: DoneWorld, config: DoneConfig) -> bool:
    return all(
        row.effects == (row.status == DONE)
        for message, row in enumerate(after.rows)
        if config.kinds[message] in (EFFECT, REFUSED)
    )


def _breaks_its_promise_once(_before: DoneWorld, _step: DoneStep, after: DoneWorld, config: DoneConfig) -> bool:
    return all(
        row.effects <= 1 and row.status != DONE
        for message, row in enumerate(after.rows)
        if config.kinds[message] == COMMITS
    )


def _changes_its_own(before: DoneWorld, step: DoneStep, after: DoneWorld, _config: DoneConfig) -> bool:
    if step.name not in ("ack", "commit", "fail") or not step.is_own:
        return True
    number = int(step.who.rpartition(" ")[2])
    return all(
        old.status == new.status or old.token == number for old, new in zip(before.rows, after.rows, strict=True)
    )


def _has_its_record(_before: DoneWorld, _step: DoneStep, after: DoneWorld, _config: DoneConfig) -> bool:
    """A mail that was sent names a record that is there, or is on its way."""
    in_progress = {message for hand in after.hands if hand.phase in (PREPARED, ACKED) for message in hand.batch}
    in_progress |= set(after.doubt.batch) if after.doubt else set()
    return all(row.records or not row.mails or message in in_progress for message, row in enumerate(after.rows))


def _prepares_what_is_decided(before: DoneWorld, step: DoneStep, _after: DoneWorld, _config: DoneConfig) -> bool:
    if step.name != "prepare" or before.doubt is None:
        return True
    is_its_own = step.who == f"worker {before.doubt.by}"
    return not is_its_own or not {f"m{message}" for message in before.doubt.acked} & {*step.remark.split(", ")}


ONCE: Final = "the effects of a message are there once if it is done, and not at all if it is not"
PROMISE: Final = "a task that ends its transaction is never done, and does that once"
FENCE: Final = "ack, commit and fail change a row only under their own claim"
RECORD: Final = "a mail that was sent names a record that was committed"
DECIDED: Final = "no worker prepares again what PostgreSQL may have committed for it"
PROPERTIES: Final[dict[str, Check]] = {
    ONCE: _happens_once,
    FENCE: _changes_its_own,
    RECORD: _has_its_record,
    DECIDED: _prepares_what_is_decided,
}
WITHOUT_FAULTS: Final[dict[str, Check]] = {**PROPERTIES, PROMISE: _breaks_its_promise_once}

ONE: Final = DoneConfig(kinds=(EFFECT,), max_retries=1, faults=2)
TWO: Final = DoneConfig(max_retries=1, faults=2)
WITH_MAIL: Final = DoneConfig(kinds=(EFFECT, MAIL))
COMMITTING: Final = DoneConfig(kinds=(COMMITS,), max_retries=1, faults=0)
REFUSING: Final = DoneConfig(kinds=(REFUSED,), max_retries=1, faults=1)
SIZES: Final = {
    "two-faults": ONE,
    "two-in-one-transaction": TWO,
    "beside-a-mail": WITH_MAIL,
    "its-task-commits": COMMITTING,
    "its-commit-is-refused": REFUSING,
}
LONG: Final = {
    "three-faults": DoneConfig(kinds=(EFFECT,), max_retries=2, faults=3),
    "two-and-three-faults": DoneConfig(faults=3, max_retries=1),
}
CONFIGS: Final = [
    *(pytest.param(config, id=name) for name, config in SIZES.items()),
    *(pytest.param(config, id=name, marks=pytest.mark.long) for name, config in LONG.items()),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_effects_happen_once_and_every_message_ends(config: DoneConfig) -> None:
    explored = explore_done(config, PROPERTIES if config.faults else WITHOUT_FAULTS)

    print(f"\n{len(explored.onward):,} worlds")  # noqa: T201 - for pytest -s
    assert not explored.broken, "\n".join(map(str, explored.broken))
    stuck = explored.without_way_to(lambda world: all(row.status in (DONE, DEAD) for row in world.rows))
    assert not stuck, "\n".join(explored.way_to(stuck[0]))


BROKEN: Final = [
    (DoneGuard.SAME_COMMIT, ONCE, TWO._replace(faults=0)),
    (DoneGuard.ALL_OR_NOTHING, ONCE, ONE._replace(faults=1)),
    (DoneGuard.ACK_TOKEN, FENCE, ONE._replace(faults=1)),
    (DoneGuard.MARKER_IN_ACK, PROMISE, COMMITTING),
    (DoneGuard.BROKEN_IS_DEAD, PROMISE, COMMITTING),
    (DoneGuard.OURS_LOCKED, DECIDED, ONE._replace(faults=1)),
    (DoneGuard.MAILS_AFTER_COMMIT, RECORD, WITH_MAIL),
]


@pytest.mark.parametrize(("guard", "broken", "config"), BROKEN, ids=[guard.name for guard, _, _ in BROKEN])
def test_without_the_guard_a_property_breaks(guard: DoneGuard, broken: str, config: DoneConfig) -> None:
    explored = explore_done(config._replace(without=frozenset({guard})), {broken: WITHOUT_FAULTS[broken]})

    assert explored.broken, f"{guard.value!r} is not needed for: {broken}"
    print(f"\nwithout {guard.value!r}\n{explored.broken[0]}")  # noqa: T201 - for pytest -s


def test_without_the_guard_a_message_whose_commit_is_refused_never_ends() -> None:
    guard = DoneGuard.COMMIT_REFUSED
    explored = explore_done(REFUSING._replace(faults=0, without=frozenset({guard})), {})

    stuck = explored.without_way_to(lambda world: world.rows[0].status in (DONE, DEAD))

    assert stuck
    print(f"\nwithout {guard.value!r} nothing leads on from\n" + "\n".join(explored.way_to(stuck[0])))  # noqa: T201 - for pytest -s


def test_every_guard_has_its_counterexample() -> None:
    assert set(DoneGuard) == {guard for guard, _, _ in BROKEN} | {DoneGuard.COMMIT_REFUSED}
