"""The relay brings back the messages whose jobs RQ's stock worker loses."""

import secrets
from random import Random

import pytest

from tests.crash.scene import Stage
from tests.crash.stock_worker import SETTINGS, kill_between_pop_and_start, terminate_under_load

pytestmark = pytest.mark.e2e

KILLS, TERMS = 10, 5


@pytest.fixture
def random() -> Random:
    """Random times, different in each run. A failed test shows the seed."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    return Random(seed)  # noqa: S311 - it chooses moments, no secrets


def test_a_worker_killed_between_pop_and_start_loses_nothing(stage: Stage, random: Random) -> None:
    with stage.scene(**SETTINGS) as scene:
        tally = kill_between_pop_and_start(scene, KILLS, random)

        assert (tally.messages, tally.lost, tally.copies) == (KILLS, 0, 0)
        assert tally.returned >= KILLS


def test_a_worker_terminated_under_load_loses_nothing(stage: Stage, random: Random) -> None:
    with stage.scene(**SETTINGS) as scene:
        tally = terminate_under_load(scene, TERMS, random)

        assert (tally.lost, tally.copies) == (0, 0)
