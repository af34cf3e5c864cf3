"""Row locks are never waited for in a cycle."""

from __future__ import annotations

import pytest

from tests.model.messages.locks import LockGuard, moments


def test_locks_are_never_waited_for_in_a_cycle() -> None:
    visited = 0
    for moment in moments():
        visited += 1
        assert not moment.waits_in_a_cycle(), moment
        # A batch is locked across a call to Redis; who else wants to publish or to reap passes it by.
        waiting = {moment.transactions[number].name for number in moment.waits()}
        assert not waiting & {"take_batch", "reap_running"}, moment

    print(f"\n{visited:,} moments of three transactions")  # noqa: T201 - for pytest -s


@pytest.mark.parametrize("guard", LockGuard, ids=lambda guard: guard.name)
def test_without_the_guard_transactions_wait_for_each_other_in_a_cycle(guard: LockGuard) -> None:
    cycle = next(moment for moment in moments(guard) if moment.waits_in_a_cycle())

    print(f"\nwithout {guard.value!r}:\n{cycle}")  # noqa: T201 - for pytest -s
