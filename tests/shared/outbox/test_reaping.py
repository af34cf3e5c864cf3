"""Claims whose lease is over come back, and so do published messages whose jobs are missing."""

from typing import Any

import psycopg

from shared.database.connections import connect
from shared.outbox import reaping
from shared.outbox.messages import JobRef
from tests.rows import add_message, end_leases, message

Connection = psycopg.Connection[tuple[Any, ...]]
NO_GRACE = 0.0


def test_a_claim_whose_lease_is_over_is_pending_again_and_due_now(connection: Connection) -> None:
    id_ = add_message(connection, status="running", attempt=3)
    end_leases(connection)

    reaped = reaping.reap_running(connection, 10, NO_GRACE)

    row = message(connection, id_)
    assert [(each.id, each.status, each.attempt) for each in reaped] == [(id_, "pending", 3)]
    assert (row["status"], row["generation"], row["attempt"]) == ("pending", 1, 3)
    assert [(each["attempt"], each["maybe_accepted"]) for each in row["failures"]] == [(3, True)]
    assert connection.execute("SELECT due_at <= clock_timestamp() FROM outbox").fetchone() == (True,)


def test_messages_whose_worker_died_twice_do_not_come_back_in_step(connection: Connection) -> None:
    for _ in range(20):
        add_message(connection, status="running", claimed_at="2026-01-01T00:00:00Z")
    connection.execute("UPDATE outbox SET claimed_at = now() - interval '61 s', lease_until = now() - interval '1 s'")
    reaping.reap_running(connection, 100, NO_GRACE)
    connection.execute(
        """
        UPDATE outbox SET status = 'running', attempt = 2, claim_token = gen_random_uuid(),
                          claimed_at = now() - interval '61 s', lease_until = now() - interval '1 s'
        """
    )

    reaping.reap_running(connection, 100, NO_GRACE)

    waits = connection.execute("SELECT extract(epoch FROM due_at - now())::float8 FROM outbox").fetchall()
    seconds = [wait for (wait,) in waits]
    assert len({round(each) for each in seconds}) > 5
    assert -1 < min(seconds) <= max(seconds) <= 61


def test_a_worker_that_died_at_the_last_attempt_leaves_a_dead_letter(connection: Connection) -> None:
    id_ = add_message(connection, status="running", attempt=11)
    end_leases(connection)

    reaping.reap_running(connection, 10, NO_GRACE)

    row = message(connection, id_)
    assert (row["status"], row["generation"]) == ("dead", 0)
    assert "lease" in row["last_error"]


def test_a_claim_within_its_lease_is_left_alone(connection: Connection) -> None:
    add_message(connection, status="running")

    assert reaping.reap_running(connection, 10, NO_GRACE) == []


def test_nothing_is_reaped_right_after_the_start_of_postgresql(connection: Connection) -> None:
    add_message(connection, status="running")
    end_leases(connection)

    assert reaping.reap_running(connection, 10, grace_seconds=1e6) == []


def test_a_claim_that_is_being_acknowledged_is_left_alone(connection: Connection, database_url: str) -> None:
    id_ = add_message(connection, status="running")
    end_leases(connection)
    with connect(database_url, "test") as consumer, consumer.transaction():
        consumer.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [id_])

        assert reaping.reap_running(connection, 10, NO_GRACE) == []


def test_failures_are_kept_up_to_a_limit(connection: Connection) -> None:
    id_ = add_message(connection, status="running", attempt=1, max_retries=1000)
    for _ in range(25):
        end_leases(connection)
        reaping.reap_running(connection, 10, NO_GRACE)
        connection.execute(
            """
            UPDATE outbox SET status = 'running', attempt = attempt + 1, claim_token = gen_random_uuid(),
                              lease_until = now(), claimed_at = now()
            """
        )

    attempts = [each["attempt"] for each in message(connection, id_)["failures"]]
    assert attempts == list(range(6, 26))


def test_only_the_generation_that_was_missed_is_returned(connection: Connection) -> None:
    id_ = add_message(connection, status="published", generation=2)

    assert reaping.return_missing(connection, [JobRef(id_, 1, "default")]) == []
    assert message(connection, id_)["status"] == "published"


def test_two_relays_at_once_return_a_message_once(connection: Connection, database_url: str) -> None:
    id_ = add_message(connection, status="published")
    rows = [JobRef(id_, 0, "default")]
    with connect(database_url, "test") as other, other.transaction():
        assert reaping.return_missing(other, rows) == rows
        assert reaping.return_missing(connection, rows) == []

    assert message(connection, id_)["generation"] == 1
