"""The groups of dead letters: what is one group, and what reading them costs."""

import pytest

from shared.database.connections import DbConnection
from shared.outbox.operations.dead_letters import discard_selected, retry_selected, select_dead
from shared.outbox.operations.failure_groups import FailureGroup, group_key, list_groups
from tests.plans import explaining
from tests.rows import add_message

REFUSED = "refused: 550 5.1.1 <[address]>: no such mailbox"


def groups(connection: DbConnection) -> list[FailureGroup]:
    return list_groups(connection).shown


def general(connection: DbConnection, reason: str) -> str:
    """Return the general form of one dead letter's reason."""
    add_message(connection, status="dead", last_error=reason)
    [group] = groups(connection)
    return group.reason


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (REFUSED, "refused: 550 5.1.1 *: no such mailbox"),
        ("451 4.7.1 Greylisted, come back in 287 seconds", "451 4.7.1 Greylisted, come back in * seconds"),
        ("the endpoint answered 404", "the endpoint answered 404"),
        ("550-5.7.1 [203.0.113.9] is blocked", "550-5.7.1 * is blocked"),
        ('server at "10.0.0.7", port 5432 failed', "server at *, port * failed"),
        ("no route to mx.example.com from 2001:db8::1", "no route to * from *"),
        ("KeyError: 'Ada Lovelace'", "KeyError: *"),
        ("can't find Ada's file 'a b'", "can*s file *"),
        ("job 0d5d7d2c-5a0e-4c57-9a34-6a1c3c1f3a52 of ada@example.com", "job * of *"),
        ("invalid literal 'deadbeef' at 0x7f00", "invalid literal * at *"),
        ("the worker died or froze: its lease ended without a result",) * 2,
        ("x" * 8000, "x" * 200),
    ],
)
def test_what_varies_is_taken_out_of_a_reason(connection: DbConnection, reason: str, expected: str) -> None:
    assert general(connection, reason) == expected


@pytest.mark.parametrize(
    "reason", ["'" * 8000, "<" * 8000, "'a " * 2600, "a." * 4000, "a" * 7999 + "1", "é\t\n\x1b[1m"]
)
def test_no_reason_keeps_a_message_from_dying(connection: DbConnection, reason: str) -> None:
    connection.execute("SET statement_timeout = '5s'")

    assert len(general(connection, reason)) <= 200


def test_a_group_has_its_count_its_times_and_its_newest_message(connection: DbConnection) -> None:
    ids = [
        add_message(
            connection, status="dead", last_error=f"KeyError: 'user{hour}'", claimed_at=f"2026-11-24T{hour}:00Z"
        )
        for hour in ("10", "12", "11")
    ]
    add_message(connection, task="task:other", status="dead", last_error="KeyError: 'user10'")
    add_message(connection, last_error="KeyError: 'user10'")

    largest, other = groups(connection)

    assert (largest.task, largest.reason, largest.messages, largest.are_all, largest.newest_id) == (
        "task:send_verify_email",
        "KeyError: *",
        3,
        True,
        ids[-1],
    )
    assert [None if seen is None else seen.hour for seen in (largest.first_seen, largest.last_seen)] == [10, 12]
    assert (other.task, other.messages) == ("task:other", 1)


def test_an_id_stands_for_its_group_whatever_the_sign_of_its_hash(connection: DbConnection) -> None:
    for reason in "abcdefgh":
        add_message(connection, status="dead", last_error=reason)
    found = groups(connection)

    steps = [list(retry_selected(connection, select_dead(connection, group_key(each.id)))) for each in found]

    assert steps == [[1]] * 8
    assert {each.id[0] < "8" for each in found} == {True, False}
    assert [group_key(text) for text in ("", "0" * 15, "0" * 17, "G" * 16, "\u0661" * 16)] == [None] * 5


def test_more_groups_than_are_shown_are_counted(connection: DbConnection) -> None:
    for reason in ("a", "b", "b", "b", "c", "c"):
        add_message(connection, status="dead", last_error=reason)

    found = list_groups(connection, 2)

    assert ([each.reason for each in found.shown], found.others, found.are_all) == (["b", "c"], 1, True)


def test_a_reason_of_its_own_for_each_dead_letter_is_bounded(connection: DbConnection) -> None:
    add_dead(connection, 1100, "'text ' || translate(n::text, '0123456789', 'abcdefghij')")

    found = list_groups(connection, 1000)

    assert (len(found.shown), found.others, found.are_all) == (1000, 0, False)


def test_groups_and_steps_read_the_index_of_the_groups_alone(connection: DbConnection, database_url: str) -> None:
    connection.execute("ANALYZE outbox")
    add_dead(connection, 3000, "(ARRAY['a', 'b', 'c'])[mod(n, 3) + 1] || ' ' || n")
    add_dead(connection, 2, "'rare'")
    [rare] = [each for each in groups(connection) if each.reason == "rare"]

    with explaining(database_url) as reading:
        reading.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        with reading.transaction():
            found = list_groups(reading, 2)
        listed = sum(scan.rows for scan in reading.scans)
        selection = select_dead(reading, group_key(rare.id))
        # What is explained is carried out.
        assert list(retry_selected(reading, selection)) == []

    assert [each.messages for each in found.shown] == [1000, 1000]
    assert connection.execute("SELECT count(*) FROM outbox WHERE status = 'pending'").fetchone() == (2,)
    assert {scan.kind for scan in reading.scans} <= {"Index Scan", "Index Only Scan", "ModifyTable"}
    # Each of four groups up to 100 of its messages, the two largest wholly.
    assert listed < 2500
    # The newest of two rows, and two rows that are found, locked and changed.
    assert sum(scan.rows for scan in reading.scans) - listed < 20


def test_a_dead_letter_that_dies_again_meanwhile_is_retried_once(connection: DbConnection) -> None:
    add_dead(connection, 3, "'again'")
    steps = 0

    for _ in retry_selected(connection, select_dead(connection), at_once=1):
        steps += 1
        assert steps < 10, "the dead letters that died again are retried again"
        connection.execute("UPDATE outbox SET status = 'dead' WHERE status = 'pending'")

    assert steps == 3


def test_what_died_after_the_selection_is_not_discarded(connection: DbConnection) -> None:
    add_dead(connection, 3, "'no'")
    selection = select_dead(connection)
    later = add_message(connection, status="dead")

    assert list(discard_selected(connection, selection, "a test", at_once=2)) == [2, 1]
    assert connection.execute("SELECT id FROM outbox").fetchall() == [(later,)]


def add_dead(connection: DbConnection, number: int, reason: str) -> None:
    """Add dead letters whose reason is an SQL expression of n."""
    connection.execute(
        "INSERT INTO outbox (task, payload, status, attempt, last_error)"
        f" SELECT 'task:t', '{{}}', 'dead', 1, {reason} FROM generate_series(1, %s) AS n",
        [number],
    )
