"""The delay after a failed attempt is asynq's: n^4 + 15 + random(0..30) * (n + 1) seconds after n retries."""

import pytest

from consumer.stages.backoff import retry_delay_seconds

DRAWS = 500


@pytest.mark.parametrize(
    ("attempt", "shortest", "longest"),
    [(1, 15, 45), (2, 16, 76), (3, 31, 121), (4, 96, 216), (11, 10_015, 10_345)],
)
def test_each_wait_lies_within_the_bounds_of_the_formula(attempt: int, shortest: int, longest: int) -> None:
    waits = {retry_delay_seconds(attempt, 1.0) for _ in range(DRAWS)}

    assert all(shortest <= wait <= longest for wait in waits)


def test_messages_that_failed_together_are_retried_at_different_times() -> None:
    waits = {retry_delay_seconds(1, 1.0) for _ in range(DRAWS)}

    assert len(waits) > 20


@pytest.mark.parametrize("scale", [0.0, 0.02, 3.0])
def test_the_scale_multiplies_the_whole_wait(scale: float) -> None:
    waits = [retry_delay_seconds(2, scale) for _ in range(DRAWS)]

    assert all(16 * scale <= wait <= 76 * scale for wait in waits)
