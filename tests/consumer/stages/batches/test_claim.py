"""Claiming many messages at once."""

import threading
import time
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
from consumer.stages.database import Database, TaskConnection
from consumer.stages.database_retries import RetryPolicy
from shared.database.connections import LOCK_SECONDS, connect
from tests.addresses import with_parameter
from tests.consumer.stages.batches.steps import VERIFY, Steps, add_messages, claimed_ids, locked
from tests.rows import add_message, message
from tests.waiting import wait_until


def test_only_claimable_messages_are_claimed(steps: Steps, connection: "Connection[Any]") -> None:
    ours = add_messages(connection, 3)
    others = [add_message(connection, status="running"), add_message(connection, due_at="2100-01-01T00:00:00Z"), 10**6]

    claimed = steps.claim([*ours, *others])

    assert claimed_ids(claimed) == set(ours)
    assert {(each.message_id, each.disposition) for each in claimed.not_claimed} == {
        (other, Disposition.NOT_CLAIMED) for other in others
    }
    assert [message(connection, id_)["attempt"] for id_ in ours] == [1, 1, 1]


def test_two_workers_that_claim_the_same_messages_get_each_once(
    steps: Steps, database_url: str, connection: "Connection[Any]"
) -> None:
    ids = add_messages(connection, 40)
    workers = [steps, Steps(Database(database_url), database_url)]
    together = threading.Barrier(2)

    def claim(number: int) -> ClaimResult:
        together.wait()
        return workers[number].claim(ids if number else ids[::-1])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(claim, range(2))
    workers[1].database.close()

    assert claimed_ids(first) | claimed_ids(second) == set(ids)
    assert claimed_ids(first) & claimed_ids(second) == set()
    assert {message(connection, id_)["attempt"] for id_ in ids} == {1}


def test_a_locked_row_does_not_delay_the_others(steps: Steps, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 4)

    with locked(steps.url, "SELECT FROM outbox WHERE id = %s FOR UPDATE", ids[1]):
        begin = time.monotonic()
        claimed = steps.claim(ids)
        seconds = time.monotonic() - begin

    # As long as a relay's COMMIT may take. An append with a dedup key may hold a row for much longer.
    assert seconds < LOCK_SECONDS / 2
    assert claimed_ids(claimed) == {ids[0], ids[2], ids[3]}
    [left] = claimed.not_claimed
    assert (left.message_id, left.disposition) == (ids[1], Disposition.NOT_CLAIMED)
    assert message(connection, ids[1])["status"] == "published"


def test_a_writer_of_several_dedup_keys_and_a_claim_do_not_wait_for_each_other(
    steps: Steps, connection: "Connection[Any]"
) -> None:
    """The claim locks the rows in the order of their ids, the writer in that of their keys. The claim gives way."""
    ids = [add_message(connection, status="published", dedup_key=key) for key in ("b", "a")]
    append = """
        INSERT INTO outbox (task, payload, dedup_key) VALUES (%s, '{"username": "alice"}', %s)
            ON CONFLICT (task, dedup_key) WHERE dedup_key IS NOT NULL AND claimed_at IS NULL
            DO UPDATE SET payload = excluded.payload, due_at = least(outbox.due_at, excluded.due_at)
        RETURNING id
    """
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with connect(steps.url, "a writer") as writer, ThreadPoolExecutor(1) as pool:
        writer.execute("BEGIN")
        appended = [writer.execute(append, [VERIFY, "a"]).fetchone()]
        claimed = pool.submit(steps.claim, ids)
        wait_until(lambda: connection.execute(waiting).rowcount == 1, 10, "the claim to wait")
        appended.append(writer.execute(append, [VERIFY, "b"]).fetchone())
        writer.execute("COMMIT")

        assert claimed_ids(claimed.result(timeout=10)) <= set(ids)
    assert appended == [(ids[1],), (ids[0],)]


class LosesTheFirstAnswer(Database):
    """The answer to the first COMMIT is lost, and from then on statements fail."""

    def __init__(self, database_url: str, then: Callable[[], object]) -> None:
        super().__init__(database_url)
        self._then: Callable[[], object] | None = then

    @contextmanager
    def transaction(self, **limits: Any) -> Iterator[TaskConnection]:
        with super().transaction(**limits) as connection:
            yield connection
        if self._then is not None:
            self._then()
            self._then = None
            self.close()
            raise psycopg.OperationalError


@pytest.mark.parametrize("trouble", ["LOCK TABLE outbox", "ALTER TABLE outbox RENAME TO elsewhere; COMMIT; BEGIN"])
def test_unconfirmed_claims_are_given_up_when_their_lease_is_over(
    quick_steps: Steps, connection: "Connection[Any]", trouble: str
) -> None:
    ids = add_messages(connection, 2)
    with connect(quick_steps.url, "a human") as human:
        human.execute("BEGIN")
        database = LosesTheFirstAnswer(quick_steps.url, lambda: human.execute(trouble))
        lease = Lease.start(1.0)
        claimed = Claimer(database, lease.seconds, RetryPolicy()).claim(dict.fromkeys(ids))

    assert (claimed.claimed, lease.is_over()) == ([], True)
    assert {each.disposition for each in claimed.not_claimed} == {Disposition.UNACKNOWLEDGED}


def test_a_locked_table_counts_as_an_outage_of_postgresql(quick_steps: Steps, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 2)
    with locked(quick_steps.url, "LOCK TABLE outbox"):
        claimed = Claimer(quick_steps.database, 0.3, RetryPolicy()).claim(dict.fromkeys(ids))

    assert {each.disposition for each in claimed.not_claimed} == {Disposition.UNACKNOWLEDGED}
    assert all("canceling statement due to lock timeout" in str(each.reason) for each in claimed.not_claimed)


def test_a_message_with_a_time_beyond_pythons_range_is_claimed(steps: Steps, connection: "Connection[Any]") -> None:
    ids = [add_message(connection), add_message(connection, due_at="-infinity")]

    assert claimed_ids(steps.claim(ids)) == set(ids)


def test_a_row_that_cannot_be_claimed_does_not_affect_the_others(steps: Steps, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    connection.execute(f"ALTER TABLE outbox ADD CHECK (id <> {ids[1]} OR status <> 'running')")

    claimed = steps.claim(ids)

    assert claimed_ids(claimed) == {ids[0], ids[2]}
    assert [(each.message_id, each.reason) for each in claimed.not_claimed] == [(ids[1], "CheckViolation (23514)")]


def test_a_standby_counts_as_unavailable(steps: Steps) -> None:
    assert steps.database.answers()
    steps.database.close()
    standby = Database(with_parameter(steps.url, "options=-c%20default_transaction_read_only%3Don"))

    assert not standby.answers()
    standby.close()
