"""Fill a database with a history: millions of finished messages, lost jobs, forgotten claims."""

from typing import Any

import psycopg

from bench.relays.batches import BATCH
from shared.outbox.messages import SendVerifyEmail

LIVE, LIVE_INDEXES, PAST, PAST_INDEXES = "outbox MiB", "outbox indexes MiB", "finished MiB", "finished indexes MiB"

_FILLED_AT_ONCE = 500_000


def add_finished(connection: psycopg.Connection[Any], count: int) -> None:
    """Write that many finished messages, spread over the last day with negative ids, which no live message has."""
    for first in range(1, count + 1, _FILLED_AT_ONCE):
        connection.execute(
            """
            INSERT INTO outbox_finished (
                id, task, payload, queue, status, due_at, generation, attempt, max_retries, broker_epoch, failures,
                created_at, published_at, claimed_at, finished_at)
            SELECT -n, %(task)s, jsonb_build_object('username', 'user' || n), %(queue)s, 'done', at, 0, 1, 10, 'e/r',
                   '[]', at, at, at, at
              FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n,
                   LATERAL (SELECT now() - interval '1 day' * n / %(count)s AS at)
            """,
            {
                "task": SendVerifyEmail.task,
                "queue": SendVerifyEmail.queue,
                "first": first,
                "last": min(first + _FILLED_AT_ONCE - 1, count),
                "count": count,
            },
        )
    connection.execute("VACUUM ANALYZE outbox_finished")
    connection.execute("CHECKPOINT")


def add_forgotten_claims(connection: psycopg.Connection[Any], count: int) -> None:
    """Write messages whose workers died: their leases are over."""
    connection.execute(
        """
        INSERT INTO outbox (task, queue, payload, status, attempt, claim_token, claimed_at, lease_until, broker_epoch)
        SELECT %s, %s, '{}', 'running', 1, gen_random_uuid(), now() - interval '2 minutes',
               now() - interval '1 minute', 'e/r'
          FROM generate_series(1, %s)
        """,
        [SendVerifyEmail.task, SendVerifyEmail.queue, count],
    )


def add_lost_jobs(connection: psycopg.Connection[Any], count: int) -> None:
    """Write messages whose jobs were lost with an earlier epoch of Redis."""
    connection.execute(
        """
        INSERT INTO outbox (task, queue, payload, status, published_at, lease_until, broker_epoch)
        SELECT %s, %s, '{}', 'published', now(), now() + interval '1 hour', 'another/life'
          FROM generate_series(1, %s)
        """,
        [SendVerifyEmail.task, SendVerifyEmail.queue, count],
    )


def finish_published(connection: psycopg.Connection[Any]) -> int:
    """Claim and finish all published messages in steps of a batch, with the consumer's updates; return how many.

    In SQL, because sending a million mails takes most of an hour, and what is measured here is what the
    rows' lives leave behind in tables and indexes.
    """
    # Read once: beside an old snapshot each search from the start of the index would read all earlier entries.
    ids = [row[0] for row in connection.execute("SELECT id FROM outbox WHERE status = 'published' ORDER BY id")]
    for first in range(0, len(ids), BATCH):
        batch = ids[first : first + BATCH]
        connection.execute(
            """
            UPDATE outbox
               SET status = 'running', attempt = attempt + 1, claim_token = gen_random_uuid(),
                   claimed_at = clock_timestamp(), lease_until = clock_timestamp() + interval '60 seconds'
             WHERE id = ANY(%s)
            """,
            [batch],
        )
        connection.execute(
            """
            WITH finished AS (DELETE FROM outbox WHERE id = ANY(%s) RETURNING *)
            INSERT INTO outbox_finished (
                id, task, payload, queue, status, due_at, generation, attempt, max_retries, broker_epoch, failures,
                created_at, published_at, claimed_at, finished_at)
            SELECT id, task, payload, queue, 'done', due_at, generation, attempt, max_retries, broker_epoch, failures,
                   created_at, published_at, claimed_at, clock_timestamp()
              FROM finished
            """,
            [batch],
        )
    return len(ids)


def sizes_of_outbox(connection: psycopg.Connection[Any]) -> dict[str, float]:
    """Return the sizes of the live and of the finished messages' table, and of their indexes, in MiB."""
    row = connection.execute(
        """
        SELECT pg_table_size('outbox'), pg_indexes_size('outbox'),
               pg_table_size('outbox_finished'), pg_indexes_size('outbox_finished')
        """
    ).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return {name: size / 2**20 for name, size in zip((LIVE, LIVE_INDEXES, PAST, PAST_INDEXES), row, strict=True)}
