"""The statements that publish: which pending rows are due, and that their jobs were pushed to Redis.

Each function executes one statement, whose conditions make it safe to run concurrently with any other.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import LARGEST_ID
from shared.outbox.messages import QUEUES, STARVED_SECONDS, JobRef


class Cursor(NamedTuple):
    """A position among the pending messages of a queue: only those behind this due time and id are read."""

    due_at: str
    """As PostgreSQL wrote it, to the microsecond."""
    id: int = 0


CURSORS_AT_START: Final[Mapping[str, Cursor]] = dict.fromkeys(QUEUES, Cursor("-infinity"))
"""The cursors behind which every pending message is."""

CURSOR_AT_END: Final = Cursor("infinity", LARGEST_ID)
"""The cursor behind which no message is."""


class Batch(NamedTuple):
    """The messages that were taken and, for each queue among them, the cursor at its last row."""

    jobs: Sequence[JobRef]
    cursors: Mapping[str, Cursor]


def take_batch(
    connection: DbConnection,
    size: int,
    due_before: float | None = None,
    cursors: Mapping[str, Cursor] = CURSORS_AT_START,
) -> Batch:
    """Lock up to `size` due messages: critical before default, the oldest first.

    When default has waited for STARVED_SECONDS, a tenth of the batch is kept free for it, so that a critical queue that
    never empties does not starve it. SKIP LOCKED lets relays work side by side. While the breaker is open, nothing is
    taken: see take_probe.

    Args:
        connection: inside a transaction; the locks last until its end.
        size: the largest number of rows.
        due_before: seconds since the epoch; by default everything that is due now.
        cursors: for each queue, the position behind which messages are taken.

    """
    # The last LIMIT asks the second queue for what the first has left over, and for no row more: PostgreSQL runs the
    # parts of a UNION ALL one after the other, and locks a row when it is asked for it.
    taken = connection.execute(
        """
        SELECT id, generation, queue, due_at::text
          FROM (
              SELECT id, generation, queue, due_at
                FROM outbox
               WHERE status = 'pending' AND queue = 'critical'
                 AND due_at <= coalesce(to_timestamp(%(before)s), now())
                 AND (due_at, id) > (%(critical_due_at)s::timestamptz, %(critical_id)s::bigint)
                 AND NOT EXISTS (SELECT FROM outbox_destinations WHERE name = 'mail' AND opened_at IS NOT NULL)
               ORDER BY due_at, id
               LIMIT %(size)s - CASE WHEN EXISTS (
                         SELECT FROM outbox
                          WHERE status = 'pending' AND queue = 'default'
                            AND due_at < now() - make_interval(secs => %(starved)s)
                            AND (due_at, id) > (%(default_due_at)s::timestamptz, %(default_id)s::bigint)
                     ) THEN %(reserved)s ELSE 0 END
                 FOR UPDATE SKIP LOCKED
          ) AS critical
        UNION ALL
        SELECT id, generation, queue, due_at::text
          FROM (
              SELECT id, generation, queue, due_at
                FROM outbox
               WHERE status = 'pending' AND queue = 'default'
                 AND due_at <= coalesce(to_timestamp(%(before)s), now())
                 AND (due_at, id) > (%(default_due_at)s::timestamptz, %(default_id)s::bigint)
                 AND NOT EXISTS (SELECT FROM outbox_destinations WHERE name = 'mail' AND opened_at IS NOT NULL)
               ORDER BY due_at, id
               LIMIT %(size)s
                 FOR UPDATE SKIP LOCKED
          ) AS later
         LIMIT %(size)s
        """,
        {
            "before": due_before,
            "size": size,
            "reserved": reserved_for_default(size),
            "starved": STARVED_SECONDS,
            **_cursor_values(cursors),
        },
    ).fetchall()
    lasts = {row[2]: row for row in taken}
    return Batch(
        jobs=[JobRef(id_, generation, queue) for id_, generation, queue, _ in taken],
        cursors={queue: Cursor(due_at, id_) for queue, (id_, *_, due_at) in lasts.items()},
    )


def reserved_for_default(size: int) -> int:
    """Return how many rows of a batch are kept free for default when it has waited for STARVED_SECONDS."""
    return max(1, size // 10) if size > 1 else 0


def _cursor_values(cursors: Mapping[str, Cursor]) -> dict[str, str | int]:
    values: dict[str, str | int] = {}
    for queue, cursor in cursors.items():
        values |= {f"{queue}_due_at": cursor.due_at, f"{queue}_id": cursor.id}
    return values


def cursor_before_now(connection: DbConnection, seconds: float) -> Cursor | None:
    """Return the cursor at the time `seconds` before this transaction began.

    None while the breaker is open: then take_batch has taken nothing of what is due.
    """
    rows = connection.execute(
        """
        SELECT (now() - make_interval(secs => %s))::text
         WHERE NOT EXISTS (SELECT FROM outbox_destinations WHERE name = 'mail' AND opened_at IS NOT NULL)
        """,
        [seconds],
    ).fetchall()
    return Cursor(*rows[0]) if rows else None


def take_probe(connection: DbConnection, queues: Sequence[str] = QUEUES) -> list[JobRef]:
    """Lock the message that is sent next to an unreachable mail server, if a probe is due.

    It is the message of these queues that has been due for the longest time. A probe that meets the outage is released
    with a new due time, so that messages take turns and none of them blocks the others.

    The breaker's row is locked first, so that only one of several relays sends the probe.
    """
    rows = connection.execute(
        """
        WITH breaker AS MATERIALIZED (
            SELECT name
              FROM outbox_destinations
             WHERE name = 'mail' AND opened_at IS NOT NULL AND probe_at <= clock_timestamp()
               FOR UPDATE SKIP LOCKED
        )
        SELECT id, generation, queue
          FROM unnest(%(queues)s::text[]) AS wanted (name),
               LATERAL (SELECT id, generation, queue, due_at
                          FROM outbox
                         WHERE status = 'pending' AND queue = wanted.name
                           AND due_at <= now() AND EXISTS (SELECT FROM breaker)
                         ORDER BY due_at, id
                         LIMIT 1
                           FOR UPDATE SKIP LOCKED) AS head
         ORDER BY due_at, id
         LIMIT 1
        """,
        {"queues": list(queues)},
    ).fetchall()
    return [JobRef(*row) for row in rows]


def mark_probe(connection: DbConnection, message_id: int, timeout_seconds: float) -> None:
    """Record which message is the probe. If its result is not known after `timeout_seconds`, another one is sent."""
    connection.execute(
        """
        UPDATE outbox_destinations
           SET probe_id = %s, probe_at = clock_timestamp() + make_interval(secs => %s)
         WHERE name = 'mail' AND opened_at IS NOT NULL
        """,
        [message_id, timeout_seconds],
    )


def mark_published(connection: DbConnection, ids: Sequence[int], epoch: str, lease_seconds: float) -> int:
    """Record that the jobs of these pending rows were pushed, and return the number of rows."""
    return connection.execute(
        """
        UPDATE outbox
           SET status = 'published', broker_epoch = %s, published_at = clock_timestamp(),
               lease_until = clock_timestamp() + make_interval(secs => %s)
         WHERE id = ANY(%s::bigint[]) AND status = 'pending'
        """,
        [epoch, lease_seconds, array_literal(ids)],
    ).rowcount


@own_transaction
def next_due(connection: DbConnection, cursors: Mapping[str, Cursor] = CURSORS_AT_START) -> float | None:
    """Return the seconds until the next message is due.

    Negative if one is due already, None if none is pending behind the cursors. While the breaker is open, nothing
    is due before the next probe.
    """
    row = connection.execute(
        """
        SELECT extract(epoch FROM greatest(
                   due_at,
                   (SELECT probe_at FROM outbox_destinations WHERE name = 'mail' AND opened_at IS NOT NULL)
               ))::float8 - extract(epoch FROM clock_timestamp())::float8
          FROM (
              SELECT least(
                         (SELECT min(due_at) FROM outbox
                           WHERE status = 'pending' AND queue = 'critical' AND due_at >= %(critical_due_at)s),
                         (SELECT min(due_at) FROM outbox
                           WHERE status = 'pending' AND queue = 'default' AND due_at >= %(default_due_at)s)
                     ) AS due_at
          ) AS next
         WHERE due_at IS NOT NULL
        """,
        _cursor_values(cursors),
    ).fetchone()
    return None if row is None else row[0]


@own_transaction
def clock(connection: DbConnection) -> float:
    """Return the database's time in seconds since the epoch."""
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return float(row[0])


def array_literal(numbers: Sequence[int]) -> str:
    """Return PostgreSQL's text form of an array. psycopg's own checks each element for quotes, at 1.5 us each."""
    return "{" + ",".join(map(str, numbers)) + "}"
