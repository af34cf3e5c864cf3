"""No account is deleted while the clocks of PostgreSQL and of the relay disagree."""

import pytest
import structlog

from outbox_relay.loop.maintenance.expiry import AccountExpiry, TrustedClock
from tests.outbox_relay.loop.expiry.accounts import DAYS, Connection, accounts, add_old_user, days_ago


def clock_of(database: float, monotonic: float, wall: float | None = None) -> tuple[float, float, float]:
    """The three clocks' seconds at one step."""
    return database, monotonic, database if wall is None else wall


@pytest.mark.parametrize(
    ("steps", "trusted"),
    [
        ([clock_of(1000, 0), clock_of(1060, 60)], [True, True]),
        ([clock_of(1000, 0), clock_of(865_060, 60), clock_of(865_120, 120)], [True, False, False]),
        ([clock_of(1000, 0), clock_of(865_060, 60), clock_of(868_800, 3800)], [True, False, True]),
        ([clock_of(1000, 0), clock_of(865_060, 60), clock_of(1120, 120), clock_of(4600, 3600)], [True] + [False] * 3),
        ([clock_of(865_000, 0, 1000), clock_of(1060, 60)], [False, False]),
        ([clock_of(1000, 0, 2000)], [True]),
    ],
    ids=["steady", "jumps-ahead", "an-hour-later", "jumps-back", "differs", "a-little"],
)
def test_a_clock_that_jumps_is_not_believed_for_an_hour(
    steps: list[tuple[float, float, float]], trusted: list[bool]
) -> None:
    now = steps[0]
    clock = TrustedClock(monotonic=lambda: now[1], wall=lambda: now[2])

    for now, is_trusted in zip(steps, trusted, strict=True):
        assert clock.trusts(now[0]) is is_trusted


def test_no_account_goes_while_the_clock_is_not_believed(connection: Connection) -> None:
    add_old_user(connection)

    with structlog.testing.capture_logs() as logs:
        step = AccountExpiry(DAYS, TrustedClock(wall=lambda: days_ago(10).timestamp())).step(connection)

    assert (step.deleted, accounts(connection)) == (0, {"alice"})
    assert [line["event"] for line in logs] == ["clock.disagreed"]
