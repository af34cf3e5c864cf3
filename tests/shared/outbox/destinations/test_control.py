"""Pauses and limits of destinations, as an operator sets them."""

import pytest
from psycopg.errors import CheckViolation

from shared.database.connections import DbConnection
from shared.outbox.destinations import breaker, control
from shared.outbox.destinations.control import Resumed
from tests.rows import add_message
from tests.shared.outbox.destinations.reading import MAIL, OTHER, row, state


def test_a_pause_lasts_until_it_is_resumed_and_keeps_its_beginning(connection: DbConnection) -> None:
    control.pause(connection, OTHER, "maintenance")
    paused_at = row(connection)["paused_at"]
    control.pause(connection, OTHER, "longer maintenance")

    assert (state(connection).is_paused, state(connection, MAIL).is_paused) == (True, False)
    assert (row(connection)["paused_at"], row(connection)["pause_reason"]) == (paused_at, "longer maintenance")
    assert control.resume(connection, OTHER) is Resumed.RESUMED
    assert control.resume(connection, OTHER) is Resumed.NOT_PAUSED
    assert control.resume(connection, "nobody") is Resumed.NOT_PAUSED
    assert not state(connection).is_paused


def test_what_is_disabled_is_neither_resumed_nor_given_another_reason(connection: DbConnection) -> None:
    control.pause(connection, OTHER, f"{control.DISABLED}410 Gone")

    control.pause(connection, OTHER, "maintenance")

    assert control.resume(connection, OTHER) is Resumed.DISABLED
    assert (state(connection).is_paused, row(connection)["pause_reason"]) == (True, "disabled: 410 Gone")


def test_a_pause_while_a_probe_is_out_keeps_the_breaker_as_its_answer_leaves_it(connection: DbConnection) -> None:
    breaker.open_breaker(connection, OTHER, 1, "down", 1.0)
    connection.execute("UPDATE outbox_destinations SET probe_id = 5")

    control.pause(connection, OTHER, "maintenance")
    paused = state(connection)
    breaker.close_breaker(connection, OTHER, is_accepted=True)

    assert (paused.is_paused, paused.is_open, paused.probe_id) == (True, True, 5)
    assert (state(connection).is_paused, state(connection).is_open) == (True, False)


def test_a_limit_is_set_changed_and_removed(connection: DbConnection) -> None:
    control.set_limit(connection, OTHER, max_per_second=50, max_in_flight=4)
    first = state(connection)
    control.set_limit(connection, OTHER, max_per_second=2, max_in_flight=None)
    second, tokens = state(connection), row(connection)["tokens"]
    control.set_limit(connection, OTHER, max_per_second=None, max_in_flight=None)

    assert (first.max_per_second, first.max_in_flight, first.is_limited) == (50, 4, True)
    assert (second.max_per_second, second.max_in_flight, tokens) == (2, None, 1.6)
    assert not state(connection).is_limited


@pytest.mark.parametrize("per_second", [0, -1, 1e-9, 1_000_001, float("nan"), float("inf")])
def test_a_limit_out_of_range_is_refused(connection: DbConnection, per_second: float) -> None:
    with pytest.raises(CheckViolation):
        control.set_limit(connection, OTHER, max_per_second=per_second, max_in_flight=None)


@pytest.mark.parametrize("in_flight", [0, control.LARGEST_IN_FLIGHT + 1])
def test_a_number_in_flight_out_of_range_is_refused(connection: DbConnection, in_flight: int) -> None:
    with pytest.raises(CheckViolation):
        control.set_limit(connection, OTHER, max_per_second=None, max_in_flight=in_flight)


@pytest.mark.parametrize("name", ["", "Mail", "-x", "a b", "x" * 65, "mäil", "a\n"])
def test_a_malformed_name_is_refused(connection: DbConnection, name: str) -> None:
    with pytest.raises(CheckViolation):
        control.pause(connection, name, "maintenance")


def test_what_is_in_hand_is_counted_for_each_destination(connection: DbConnection) -> None:
    for destination in (OTHER, OTHER, MAIL):
        add_message(connection, "t", status="running", destination=destination)
    add_message(connection, "t", status="published", destination=OTHER)

    assert [control.count_in_hand(connection, name) for name in (OTHER, MAIL, "local")] == [2, 1, 0]
