"""Limits hold for all workers together: tokens for each second, and places for what is in hand."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic
from uuid import uuid4

import pytest

from shared.database.connections import DbConnection, connect, transaction
from shared.outbox.claiming import claims, releases
from shared.outbox.claiming.claims import Claim
from shared.outbox.destinations import control, limits
from shared.outbox.destinations.control import LARGEST_RATE, SMALLEST_RATE, TOKEN_SECONDS
from shared.outbox.reaping import reap_running
from tests.rows import add_message, end_leases

NAME = "webhook:1"

Connect = Callable[[], DbConnection]


@pytest.fixture
def connections(database_url: str) -> Iterator[Connect]:
    """Return a function that opens a connection, as one more worker does."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(connect(database_url, "a worker"))


def claimed(connection: DbConnection, count: int = 1) -> list[Claim]:
    ids = [add_message(connection, "t", status="published", destination=NAME) for _ in range(count)]
    return claims.claim(connection, ids, uuid4(), 60)


def admitted(connection: DbConnection, wanted: Sequence[Claim]) -> set[int]:
    with transaction(connection):
        admission = limits.admit(connection, NAME, wanted)
    return set() if admission is None else set(admission.message_ids)


def limit(connection: DbConnection, per_second: float | None = None, in_flight: int | None = None) -> None:
    control.set_limit(connection, NAME, max_per_second=per_second, max_in_flight=in_flight)


def pass_seconds(connection: DbConnection, seconds: float) -> None:
    """Let this time pass, as the tokens see it."""
    connection.execute(
        "UPDATE outbox_destinations SET refilled_at = refilled_at - make_interval(secs => %s)", [seconds]
    )


def test_a_burst_is_allowed_and_then_the_rate(connection: DbConnection) -> None:
    wanted = claimed(connection, 20)
    limit(connection, per_second=5)

    counts = []
    for seconds in (0, 0, 1, 100):
        pass_seconds(connection, seconds)
        counts.append(len(admitted(connection, wanted)))

    assert counts == [4, 0, 4, 4]


def test_a_limit_of_one_in_ten_seconds(connection: DbConnection) -> None:
    wanted = claimed(connection, 3)
    limit(connection, per_second=0.1)

    counts = []
    for seconds in (0, 9, 0.9, 1000):
        pass_seconds(connection, seconds)
        counts.append(len(admitted(connection, wanted)))

    assert counts == [1, 0, 0, 1]
    with transaction(connection):
        admission = limits.admit(connection, NAME, wanted)
    assert admission is not None
    assert admission.seconds_to_next == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("per_second", [SMALLEST_RATE, LARGEST_RATE])
def test_the_bounds_of_a_rate_admit_something(connection: DbConnection, per_second: float) -> None:
    wanted = claimed(connection, 3)
    limit(connection, per_second=per_second)

    assert len(admitted(connection, wanted)) == (1 if per_second < 1 else 3)


def test_a_clock_that_was_set_back_adds_nothing_and_is_counted_from_then_on(connection: DbConnection) -> None:
    wanted = claimed(connection, 20)
    limit(connection, per_second=5)
    admitted(connection, wanted)

    pass_seconds(connection, -3600)  # the last refill seems to be an hour ahead
    before = len(admitted(connection, wanted))
    pass_seconds(connection, 0.5)

    assert (before, len(admitted(connection, wanted))) == (0, 2)


def test_workers_together_never_pass_a_limit_by_more_than_its_burst_in_any_second(
    connection: DbConnection, connections: Connect
) -> None:
    per_second = 40
    limit(connection, per_second=per_second)
    until = monotonic() + 2.2
    workers = [(connections(), claimed(connection, 3)) for _ in range(3)]

    def work(worker: DbConnection, wanted: Sequence[Claim]) -> list[tuple[float, float]]:
        taken: list[tuple[float, float]] = []
        while (begun_at := monotonic()) < until:
            count = len(admitted(worker, wanted))
            taken += [(begun_at, monotonic())] * count
        return taken

    with ThreadPoolExecutor(len(workers)) as pool:
        taken = [token for tokens in pool.map(work, *zip(*workers, strict=True)) for token in tokens]

    # A token may be used until TOKEN_SECONDS after its statement began: which can be used within one second?
    most = max(
        sum(start <= begun and ended <= start + 1 + TOKEN_SECONDS for begun, ended in taken) for start, _ in taken
    )
    assert per_second * 1.2 <= most <= per_second * 2
    assert len(taken) >= per_second * 1.8


def test_places_are_for_all_workers_together(connection: DbConnection, connections: Connect) -> None:
    limit(connection, in_flight=3)
    ours, theirs = claimed(connection, 2), claimed(connection, 4)

    first, second = admitted(connection, ours), admitted(connections(), theirs)

    assert (len(first), len(second)) == (2, 1)
    assert admitted(connection, claimed(connection)) == set()


def test_a_place_is_free_once_the_outcome_is_recorded(connection: DbConnection) -> None:
    limit(connection, in_flight=1)
    [done, released, failed, last] = claimed(connection, 4)
    wanted = [done, released, failed, last]

    order = []
    for end in (
        lambda: claims.ack(connection, [done]),
        lambda: releases.release(connection, [released], None),
        lambda: claims.fail(connection, failed, "500", details={}, delay_seconds=1, is_dead=False),
    ):
        order.append(admitted(connection, wanted))
        assert admitted(connection, wanted[1:]) == set()
        end()
        wanted = wanted[1:]

    assert order == [{done.id}, {released.id}, {failed.id}]
    assert admitted(connection, wanted) == {last.id}


def test_a_place_of_a_worker_that_was_killed_is_free_when_its_claim_is_reaped(connection: DbConnection) -> None:
    limit(connection, in_flight=1)
    admitted(connection, claimed(connection))
    [waiting] = claimed(connection)
    before = admitted(connection, [waiting])

    end_leases(connection)
    connection.execute("UPDATE outbox SET lease_until = now() + interval '1 min' WHERE id = %s", [waiting.id])
    reap_running(connection, 10, 0)

    assert (before, admitted(connection, [waiting])) == (set(), {waiting.id})


def test_a_place_whose_commit_seemed_lost_is_counted_once(connection: DbConnection) -> None:
    limit(connection, in_flight=2)
    [again, other] = claimed(connection, 2)
    admitted(connection, [again])

    assert admitted(connection, [again]) == {again.id}
    assert admitted(connection, [other]) == {other.id}


def test_a_message_that_gets_a_place_and_no_token_takes_the_place_from_nobody(connection: DbConnection) -> None:
    limit(connection, per_second=0.1, in_flight=1)
    [sent, waiting, other] = claimed(connection, 3)
    admitted(connection, [sent])
    claims.ack(connection, [sent])

    without_token = admitted(connection, [waiting])
    limit(connection, per_second=None, in_flight=1)

    assert (without_token, admitted(connection, [other])) == (set(), {other.id})


def test_what_another_program_wrote_into_the_places_counts_for_nothing(connection: DbConnection) -> None:
    limit(connection, in_flight=1)
    connection.execute(
        """UPDATE outbox_destinations SET in_flight = '{"x": 1, "5": null, "99999999999999999999": []}'"""
    )
    [claim] = claimed(connection)

    assert admitted(connection, [claim]) == {claim.id}


def test_a_limit_that_was_removed_admits_all(connection: DbConnection) -> None:
    wanted = claimed(connection, 3)

    assert len(admitted(connection, wanted)) == 3
    limit(connection)
    assert len(admitted(connection, wanted)) == 3


def test_a_row_that_somebody_has_locked_is_not_waited_for(connection: DbConnection, connections: Connect) -> None:
    limit(connection, per_second=1000)
    wanted = claimed(connection)
    human = connections()
    with transaction(human):
        human.execute("SELECT FROM outbox_destinations FOR UPDATE")
        connection.execute("SET lock_timeout = '1ms'")
        with transaction(connection, lock_seconds=0.001):
            assert limits.admit(connection, NAME, wanted) is None
