"""The second with the most jobs, wherever it begins."""

import pytest

from bench.experiments.destinations import most_in_a_second


@pytest.mark.parametrize(
    ("times", "most"),
    [
        ([], 0),
        ([3.0], 1),
        ([0.0, 0.5, 1.0, 1.5], 2),
        ([0.0, 0.9, 1.0, 1.1, 1.8, 2.5], 4),
    ],
    ids=["none", "one", "a second apart does not count", "across a full second"],
)
def test_the_most_in_a_second_is_found_wherever_the_second_begins(times: list[float], most: int) -> None:
    assert most_in_a_second(times) == most
