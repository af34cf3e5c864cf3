"""The lease of a claim, by the consumer's own clock."""

from time import monotonic

import pytest

from consumer.model.lease import Lease


def test_a_send_may_take_two_thirds_of_the_lease() -> None:
    assert Lease(started_at=100.0, seconds=60.0).send_until == 140.0


def test_a_fresh_lease_is_not_over() -> None:
    assert not Lease.start(60.0).is_over()


@pytest.mark.parametrize(("age", "over"), [(59.0, False), (60.0, True), (3600.0, True)])
def test_a_lease_is_over_when_its_seconds_have_passed(age: float, over: bool) -> None:  # noqa: FBT001
    assert Lease(monotonic() - age, 60.0).is_over() is over
