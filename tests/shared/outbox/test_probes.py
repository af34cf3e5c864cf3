"""The statement that takes the next probe: the oldest message of some queues, without waiting for a lock."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from shared.database.connections import DbConnection, connect, transaction
from shared.outbox.messages import CRITICAL, DEFAULT
from shared.outbox.publishing import take_probe
from tests.rows import add_message, open_breaker

DUE = {CRITICAL: datetime(2020, 1, 2, tzinfo=UTC), DEFAULT: datetime(2020, 1, 1, tzinfo=UTC)}


@pytest.fixture
def ids(connection: DbConnection) -> dict[str, int]:
    """A due message of each queue, during an outage whose next probe is due."""
    open_breaker(connection, probe_in_seconds=-1)
    return {queue: add_message(connection, queue=queue, due_at=due_at) for queue, due_at in DUE.items()}


def taken(connection: DbConnection, queues: Sequence[str] = (CRITICAL, DEFAULT)) -> list[int]:
    with transaction(connection, lock_seconds=0.1):
        return [probe.job.id for probe in take_probe(connection, queues=queues)]


@pytest.mark.parametrize(
    ("queues", "oldest"),
    [([CRITICAL, DEFAULT], DEFAULT), ([CRITICAL], CRITICAL), ([DEFAULT], DEFAULT)],
    ids=["both", CRITICAL, DEFAULT],
)
def test_it_is_the_message_of_these_queues_that_has_been_due_for_the_longest_time(
    connection: DbConnection, ids: dict[str, int], queues: list[str], oldest: str
) -> None:
    assert taken(connection, queues) == [ids[oldest]]


@pytest.mark.usefixtures("ids")
def test_while_a_relay_takes_it_another_one_takes_none(connection: DbConnection, database_url: str) -> None:
    add_message(connection)  # the relay locks the oldest of each queue
    with connect(database_url, "a relay") as relay, transaction(relay):
        assert len(take_probe(relay)) == 1

        assert taken(connection) == []


def test_a_message_that_is_locked_is_passed_over(
    connection: DbConnection, database_url: str, ids: dict[str, int]
) -> None:
    with connect(database_url, "a worker") as worker, transaction(worker):
        worker.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [ids[DEFAULT]])

        assert taken(connection) == [ids[CRITICAL]]


def test_a_message_that_is_due_later_is_none(connection: DbConnection, ids: dict[str, int]) -> None:
    connection.execute("UPDATE outbox SET due_at = now() + interval '1 h' WHERE id = %s", [ids[DEFAULT]])
    assert taken(connection) == [ids[CRITICAL]]

    connection.execute("UPDATE outbox SET due_at = now() + interval '1 h'")
    assert taken(connection) == []


@pytest.mark.usefixtures("ids")
def test_none_is_taken_before_the_time_of_the_next_probe(connection: DbConnection) -> None:
    connection.execute("UPDATE outbox_breaker SET probe_at = now() + interval '1 h'")

    assert taken(connection) == []
