"""A seed draws the same run again."""

from itertools import pairwise

import pytest

from tests.chaos.plan import KINDS, choose_kinds, draw_plan

COUNTS = {"relay": 2, "worker": 2}


def test_a_seed_draws_the_same_plan_again_and_another_seed_another() -> None:
    plan = draw_plan(7, 60, tuple(KINDS), COUNTS)

    assert draw_plan(7, 60, tuple(KINDS), COUNTS) == plan
    assert draw_plan(8, 60, tuple(KINDS), COUNTS) != plan


def test_faults_are_one_to_four_seconds_apart_and_begin_within_the_run() -> None:
    plan = draw_plan(7, 300, tuple(KINDS), COUNTS)

    gaps = [later.at - earlier.at for earlier, later in pairwise(plan)]
    assert 1 <= min(gaps) <= max(gaps) <= 4
    assert plan[-1].at < 300


def test_each_kind_comes_once_before_any_comes_again() -> None:
    plan = draw_plan(7, 300, tuple(KINDS), COUNTS)

    assert {fault.kind for fault in plan[: len(KINDS)]} == set(KINDS)


def test_each_of_several_processes_gets_its_share() -> None:
    plan = draw_plan(7, 600, ("relay-kill", "worker-kill", "redis-kill"), COUNTS)

    assert {fault.target for fault in plan} == {"relay-1", "relay-2", "worker-1", "worker-2", "redis"}


def test_a_fault_lasts_as_long_as_its_kind_says() -> None:
    plan = draw_plan(7, 600, tuple(KINDS), COUNTS)

    assert all(KINDS[fault.kind].seconds[0] <= fault.seconds <= KINDS[fault.kind].seconds[1] for fault in plan)


def test_without_kinds_nothing_happens() -> None:
    assert draw_plan(7, 60, (), COUNTS) == []


def test_a_component_stands_for_all_of_its_kinds() -> None:
    assert choose_kinds("worker, redis-flush") == ("worker-kill", "worker-stop", "worker-term", "redis-flush")
    assert choose_kinds("none") == ()


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="unknown fault 'earthquake'"):
        choose_kinds("redis,earthquake")
