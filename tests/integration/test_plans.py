"""A process keeps its prepared statements for weeks: their plans have to hold for an outbox of any length."""

from uuid import uuid4

from consumer import statements as consumer_statements
from outbox_relay import statements as relay_statements
from shared.database import DbConnection, connect, transaction
from tests.rows import rows_read_by_index, rows_read_one_after_the_other

# psycopg prepares a statement at its sixth execution, PostgreSQL makes the plan that it keeps at the sixth from then.
UNTIL_A_PLAN_IS_KEPT = 15


def deliver_one(connection: DbConnection) -> int:
    """Take one message the whole way, with the statements of relay and worker."""
    with transaction(connection):
        ids = [row.id for row in relay_statements.take_batch(connection, 1).rows]
        relay_statements.mark_published(connection, ids, "epoch", 30)
    with transaction(connection):
        claims = consumer_statements.claim(connection, ids, uuid4(), 60)
    with transaction(connection):
        return len(consumer_statements.ack(connection, claims))


def add_messages(connection: DbConnection, count: int) -> None:
    connection.execute(
        "INSERT INTO outbox (task, payload, queue) SELECT 't', '{}', 'critical' FROM generate_series(1, %s)", [count]
    )


def test_plans_that_were_made_for_a_nearly_empty_outbox_read_no_full_one_from_end_to_end(database_url: str) -> None:
    with connect(database_url, "test") as others:
        others.execute("VACUUM ANALYZE outbox")
        add_messages(others, UNTIL_A_PLAN_IS_KEPT)

        with connect(database_url, "a worker of weeks") as long_lived:
            idle = [deliver_one(long_lived) for _ in range(UNTIL_A_PLAN_IS_KEPT)]
            add_messages(others, 5000)
            busy = [deliver_one(long_lived) for _ in range(3)]
            read = rows_read_one_after_the_other(long_lived)

    assert (set(idle), set(busy), read) == ({1}, {1}, 0)


def test_looking_for_lost_jobs_reads_no_row_whose_lease_still_runs(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        connection.execute("VACUUM ANALYZE outbox")
        connection.execute(
            """
            INSERT INTO outbox (task, payload, queue, status, broker_epoch, published_at, lease_until)
            SELECT 't', '{}', 'critical', 'published', 'epoch', now(), now() + interval '1 hour'
              FROM generate_series(1, 5000)
            """
        )
        before = rows_read_by_index(connection)
        found = [relay_statements.find_suspects(connection, "epoch", 100) for _ in range(UNTIL_A_PLAN_IS_KEPT)]

        assert found == [[]] * UNTIL_A_PLAN_IS_KEPT
        assert rows_read_by_index(connection) == before
