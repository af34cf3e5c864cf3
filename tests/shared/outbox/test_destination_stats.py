"""What operators read of destinations: bounded, whatever their number and that of their messages."""

from shared.database.connections import DbConnection
from shared.database.read_transaction import read_transaction
from shared.outbox.operations.destination_stats import DestinationStats, read_destination_stats
from shared.outbox.operations.stats import read_live_states
from tests.plans import explaining
from tests.rows import add_message


def read(connection: DbConnection, counted: int = 1000) -> list[DestinationStats]:
    with read_transaction(connection):
        return read_destination_stats(connection, read_live_states(connection), counted=counted)


def add(connection: DbConnection, number: int, name: str) -> None:
    """Add pending messages whose destination is an SQL expression of n."""
    connection.execute(
        f"INSERT INTO outbox (task, payload, destination) SELECT 't', '{{}}', {name} FROM generate_series(1, %s) AS n",
        [number],
    )


def test_what_is_held_up_comes_first_and_mail_before_it(connection: DbConnection) -> None:
    for name in ("a", "zz"):
        add_message(connection, destination=name)
    connection.execute(
        "INSERT INTO outbox_destinations (name, paused_at, max_per_second) VALUES ('y', now(), NULL), ('x', NULL, 5)"
    )
    connection.execute("INSERT INTO outbox_destinations (name, slow_at) VALUES ('slow', now())")

    assert [each.name for each in read(connection)] == ["mail", "y", "x", "a", "zz"]


def test_at_most_a_hundred_have_a_row_and_the_others_one(connection: DbConnection) -> None:
    add(connection, 150, "'d' || n")
    add_message(connection, destination="d1", status="published")
    add_message(connection, destination="d2", status="running")
    connection.execute(
        "INSERT INTO outbox_destinations (name, paused_at) SELECT 'p' || n, now() - n * interval '1 hour'"
        "  FROM generate_series(100, 220) AS n"
    )

    *shown, other = read(connection)

    assert (len(shown), other.name, {each.name[0] for each in shown}) == (100, "other", {"m", "p"})
    assert (other.pending, other.published, other.running, other.are_all) == (150, 1, 1, True)
    assert other.paused_seconds is not None
    assert 219 < other.paused_seconds / 3600 < 221


def test_a_destination_that_is_named_other_is_part_of_the_rest(connection: DbConnection) -> None:
    add_message(connection, destination="other")
    add_message(connection, destination=None)

    rows = [(each.name, each.pending) for each in read(connection)]

    assert rows == [("mail", 0), ("other", 2)]


def test_a_number_that_is_not_counted_to_its_end_is_not_another_destination_s(connection: DbConnection) -> None:
    add(connection, 30, "'mail'")
    add(connection, 120, "'d' || n")
    add_message(connection, destination=None)

    mail, *_, other = read(connection, counted=10)

    assert (mail.pending, mail.are_all) == (10, False)
    assert (other.pending, other.are_all) == (1, False)


def test_a_time_without_an_end_is_no_fault(connection: DbConnection) -> None:
    add_message(connection, destination="mail", due_at="-infinity")
    connection.execute("INSERT INTO outbox_destinations (name, paused_at) VALUES ('x', '-infinity')")

    assert [(each.oldest_seconds, each.paused_seconds) for each in read(connection)] == [(0.0, None), (0.0, 0.0)]


def test_reading_is_bounded_beside_a_long_backlog_of_many_names(connection: DbConnection, database_url: str) -> None:
    add(connection, 5000, "'d' || mod(n, 1000)")
    add(connection, 5000, "'mail'")
    live = read_live_states(connection)

    with explaining(database_url) as reading:
        reading.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        with reading.transaction():
            read_destination_stats(reading, live, counted=100)

    assert {scan.kind for scan in reading.scans} <= {"Index Scan", "Index Only Scan"}
    # A hundred names and five messages of each, a hundred of mail, and the head of each queue.
    assert sum(scan.rows for scan in reading.scans) < 2000
