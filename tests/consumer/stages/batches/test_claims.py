"""Many messages claimed at once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from consumer.model.lease import Lease
from consumer.model.results import Disposition
from consumer.stages.claim import Claimer, ClaimResult
from consumer.stages.database import Database
from consumer.stages.retry_policy import RetryPolicy
from shared.database.connections import DbConnection, connect
from tests.addresses import with_parameter
from tests.consumer.stages.batches.desk import Desk, add_messages, held_ids, locked
from tests.rows import add_message, message


def test_only_those_that_can_be_claimed_become_ours(desk: Desk, connection: "Connection[Any]") -> None:
    ours = add_messages(connection, 3)
    others = [add_message(connection, status="running"), add_message(connection, due_at="2100-01-01T00:00:00Z"), 10**6]

    claimed = desk.claim([*ours, *others])

    assert held_ids(claimed) == set(ours)
    assert {(each.message_id, each.disposition) for each in claimed.not_claimed} == {
        (other, Disposition.NOT_CLAIMED) for other in others
    }
    assert [message(connection, id_)["attempt"] for id_ in ours] == [1, 1, 1]


def test_two_workers_that_are_told_of_the_same_messages_share_them(
    desk: Desk, database_url: str, connection: "Connection[Any]"
) -> None:
    ids = add_messages(connection, 40)
    desks = [desk, Desk(database_url)]
    together = threading.Barrier(2)

    def claim(number: int) -> ClaimResult:
        together.wait()
        return desks[number].claim(ids if number else ids[::-1])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(claim, range(2))
    desks[1].database.close()

    assert held_ids(first) | held_ids(second) == set(ids)
    assert held_ids(first) & held_ids(second) == set()
    assert {message(connection, id_)["attempt"] for id_ in ids} == {1}


@pytest.mark.usefixtures("impatient")
def test_a_row_that_stays_locked_does_not_keep_the_others_waiting(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 4)

    with locked(desk.url, "SELECT FROM outbox WHERE id = %s FOR UPDATE", ids[1]):
        claimed = desk.claim(ids)

    assert held_ids(claimed) == {ids[0], ids[2], ids[3]}
    [left] = claimed.not_claimed
    assert (left.message_id, left.disposition) == (ids[1], Disposition.NOT_CLAIMED)
    assert message(connection, ids[1])["status"] == "published"


class LosesTheFirstAnswer(Database):
    """The first commit arrives and its answer does not; from then on something is wrong with the table."""

    def __init__(self, database_url: str, then: Callable[[], object]) -> None:
        super().__init__(database_url)
        self._then: Callable[[], object] | None = then

    @contextmanager
    def transaction(self, **limits: float) -> Iterator[DbConnection]:
        with super().transaction(**limits) as connection:
            yield connection
        if self._then is not None:
            self._then()
            self._then = None
            self.close()
            raise psycopg.OperationalError


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("trouble", ["LOCK TABLE outbox", "ALTER TABLE outbox RENAME TO elsewhere; COMMIT; BEGIN"])
def test_claims_in_doubt_are_let_go_when_their_lease_is_over(
    desk: Desk, connection: "Connection[Any]", trouble: str
) -> None:
    ids = add_messages(connection, 2)
    with connect(desk.url, "a human") as human:
        human.execute("BEGIN")
        database = LosesTheFirstAnswer(desk.url, lambda: human.execute(trouble))
        lease = Lease.start(1.0)
        claimed = Claimer(database, lease.seconds, RetryPolicy()).claim(dict.fromkeys(ids))

    assert (claimed.claimed, lease.is_over()) == ([], True)
    assert {each.disposition for each in claimed.not_claimed} == {Disposition.UNACKNOWLEDGED}


@pytest.mark.usefixtures("impatient")
def test_a_table_that_stays_locked_is_postgresql_s_outage(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 2)
    with locked(desk.url, "LOCK TABLE outbox"):
        claimed = Claimer(desk.database, 0.3, RetryPolicy()).claim(dict.fromkeys(ids))

    assert {each.disposition for each in claimed.not_claimed} == {Disposition.UNACKNOWLEDGED}
    assert all("canceling statement due to lock timeout" in str(each.reason) for each in claimed.not_claimed)


def test_a_time_that_python_does_not_know_is_no_obstacle(desk: Desk, connection: "Connection[Any]") -> None:
    ids = [add_message(connection), add_message(connection, due_at="-infinity")]

    assert held_ids(desk.claim(ids)) == set(ids)


def test_a_row_that_cannot_be_claimed_does_not_spoil_the_others(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    connection.execute(f"ALTER TABLE outbox ADD CHECK (id <> {ids[1]} OR status <> 'running')")

    claimed = desk.claim(ids)

    assert held_ids(claimed) == {ids[0], ids[2]}
    assert [(each.message_id, each.reason) for each in claimed.not_claimed] == [(ids[1], "CheckViolation (23514)")]


def test_a_standby_is_no_postgresql_to_work_with(desk: Desk) -> None:
    assert desk.database.answers()
    desk.database.close()
    standby = Database(with_parameter(desk.url, "options=-c%20default_transaction_read_only%3Don"))

    assert not standby.answers()
    standby.close()
