"""The counts of a message: no failure displaces them, and an operator's retry forgets them."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from shared.database.connections import DbConnection
from shared.outbox.columns import (
    FAILURES_KEPT,
    FAILURES_SO_FAR,
    LARGEST_FAILURES_KEPT_BYTES,
    READ_COUNTS,
    Counts,
    parse_counts,
    with_counts,
    without_count,
)
from shared.outbox.operations import dead_letters
from shared.outbox.operations.history import read_message
from tests.rows import add_message, message


def count(connection: DbConnection, **changes: float) -> None:
    connection.execute(f"UPDATE outbox SET failures = {with_counts('%(changes)s::jsonb')}", {"changes": Jsonb(changes)})


def fail(connection: DbConnection, reason: str) -> None:
    connection.execute(f"UPDATE outbox SET failures = {FAILURES_SO_FAR} || %s::jsonb", [Jsonb({"reason": reason})])


def counts(connection: DbConnection) -> Counts:
    [(text,)] = connection.execute(f"SELECT {READ_COUNTS} FROM outbox").fetchall()
    return parse_counts(text)


def test_a_message_that_was_counted_never_has_no_counts(connection: DbConnection) -> None:
    add_message(connection, failures=Jsonb([{"reason": "451"}]))

    assert counts(connection) == Counts()


def test_counts_are_set_one_by_one(connection: DbConnection) -> None:
    add_message(connection, failures=Jsonb([{"reason": "451"}]))
    count(connection, unavailable=1, unknown_since=1_700_000_000.5)
    count(connection, unavailable=2)

    assert counts(connection) == Counts(unavailable=2, unknown_since=1_700_000_000.5)
    connection.execute(f"UPDATE outbox SET failures = {without_count('unknown_since')}")
    assert counts(connection) == Counts(unavailable=2)


def test_failures_displace_each_other_and_not_the_counts(connection: DbConnection) -> None:
    id_ = add_message(connection)
    count(connection, late=1)
    for number in range(FAILURES_KEPT * 2):
        fail(connection, f"failure {number}")

    kept = message(connection, id_)["failures"]
    assert counts(connection) == Counts(late=1)
    assert len(kept) == FAILURES_KEPT
    assert [each["reason"] for each in kept[-2:]] == ["failure 38", "failure 39"]


def test_the_counts_are_no_failure_to_an_operator(connection: DbConnection) -> None:
    id_ = add_message(connection, failures=Jsonb([{"reason": "451"}]))
    count(connection, unavailable=5)

    shown = read_message(connection, id_)

    assert shown is not None
    assert [each["reason"] for each in shown["failures"]] == ["451"]


def test_an_operators_retry_forgets_the_counts_and_no_failure(connection: DbConnection) -> None:
    id_ = add_message(connection, status="dead", failures=Jsonb([{"reason": "451"}]))
    count(connection, unavailable=100)

    dead_letters.retry(connection, id_)

    assert message(connection, id_)["failures"] == [{"reason": "451"}]


@pytest.mark.parametrize(
    "stored",
    [
        [{"counts": 5}],
        [{"counts": {"unavailable": "many", "late": None, "unknown_since": []}}],
        [{"counts": {"unavailable": -1, "late": 10**400}}],
        [{"reason": "451"}, {"counts": {"late": 2}}],
    ],
)
def test_what_another_program_wrote_there_counts_for_nothing(connection: DbConnection, stored: Any) -> None:
    add_message(connection, failures=Jsonb(stored))

    before = counts(connection)
    count(connection, unavailable=1)

    assert (before, counts(connection).unavailable) == (Counts(), 1)


def test_failures_that_are_too_large_to_grow_are_dropped_for_the_counts(connection: DbConnection) -> None:
    add_message(connection, failures=Jsonb([{"text": "x" * LARGEST_FAILURES_KEPT_BYTES}] * 3))

    count(connection, unavailable=1)

    assert counts(connection) == Counts(unavailable=1)
