"""Each destination has a breaker, a probe and a mark of slowness of its own."""

from shared.database.connections import DbConnection, connect, transaction
from shared.outbox.destinations import breaker, control
from shared.outbox.destinations.states import DestinationState, read_destinations
from tests.shared.outbox.destinations.reading import MAIL, OTHER, row, state


def test_a_destination_without_a_row_is_reachable_and_neither_paused_nor_limited(connection: DbConnection) -> None:
    states = read_destinations(connection, ["nobody", OTHER])

    assert states == {"nobody": DestinationState("nobody"), OTHER: DestinationState(OTHER)}
    assert not states[OTHER].is_limited


def test_each_destination_has_a_breaker_of_its_own(connection: DbConnection) -> None:
    breaker.open_breaker(connection, OTHER, 7, "503", 1.0)

    states = read_destinations(connection, [MAIL, OTHER, "webhook:2"])

    assert [name for name, each in states.items() if each.is_open] == [OTHER]
    assert not breaker.close_breaker(connection, MAIL, is_accepted=True)
    assert breaker.close_breaker(connection, OTHER, is_accepted=True)
    assert not state(connection).is_open


def test_only_the_probe_of_a_destination_lengthens_its_pause(connection: DbConnection) -> None:
    for name in (MAIL, OTHER):
        breaker.open_breaker(connection, name, 1, "down", 1.0)
    connection.execute("UPDATE outbox_destinations SET probe_id = 5")

    breaker.open_breaker(connection, OTHER, 4, "down", 1.0)
    breaker.open_breaker(connection, OTHER, 5, "down", 1.0)

    assert (row(connection)["outages"], row(connection)["probe_id"]) == (2, None)
    assert (row(connection, MAIL)["outages"], row(connection, MAIL)["probe_id"]) == (1, 5)


def test_a_probe_is_released_for_its_own_destination_only(connection: DbConnection) -> None:
    for name in (MAIL, OTHER):
        breaker.open_breaker(connection, name, 1, "down", 1.0)
    connection.execute("UPDATE outbox_destinations SET probe_id = 5, probe_at = 'infinity'")

    breaker.release_probe(connection, OTHER, 5, 3.0)

    assert (row(connection)["probe_id"], row(connection, MAIL)["probe_id"]) == (None, 5)
    assert row(connection, MAIL)["probe_at"] == "infinity"


def test_a_destination_that_answers_again_counts_as_slow_at_first_but_for_the_mail_server(
    connection: DbConnection,
) -> None:
    for name in (MAIL, OTHER):
        breaker.open_breaker(connection, name, 1, "down", 1.0)
        breaker.close_breaker(connection, name, is_accepted=True)

    assert row(connection)["slow_at"] is not None
    assert row(connection, MAIL)["slow_at"] is None


def test_a_slow_destination_is_marked_once_in_ten_seconds(connection: DbConnection) -> None:
    breaker.mark_slow(connection, OTHER)
    first = row(connection)["slow_at"]
    breaker.mark_slow(connection, OTHER)
    second = row(connection)["slow_at"]
    connection.execute("UPDATE outbox_destinations SET slow_at = slow_at - interval '11 s'")
    breaker.mark_slow(connection, OTHER)

    assert second == first
    assert row(connection)["slow_at"] > first


def test_marking_a_slow_destination_waits_for_nobody(connection: DbConnection, database_url: str) -> None:
    control.pause(connection, OTHER, "maintenance")
    with connect(database_url, "a human") as human, transaction(human):
        human.execute("SELECT FROM outbox_destinations FOR UPDATE")
        connection.execute("SET lock_timeout = '1ms'")

        breaker.mark_slow(connection, OTHER)

    assert row(connection)["slow_at"] is None
