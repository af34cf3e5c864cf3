"""The relay's SQL: one function a statement, each with the guard that makes it safe beside any other process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from psycopg import Connection

from shared.database.connections import own_transaction
from shared.outbox.columns import FAILURES_SO_FAR, NEXT_GENERATION
from shared.outbox.messages import QUEUES

DbConnection = Connection[tuple[Any, ...]]

POSTMASTER_GRACE_SECONDS: Final = 15.0
"""After PostgreSQL's start the consumers get this long to acknowledge what they finished while it was away."""

STARVED_SECONDS: Final = 30.0
"""A default message that has been due for so long is no longer to wait for a critical queue to become empty."""

_CRASH: Final = "the worker died or stood still: its lease ended without a word"


class Row(NamedTuple):
    """What the relay knows of a message: enough to name its job, nothing of what it says."""

    id: int
    generation: int
    queue: str


class Start(NamedTuple):
    """From where on the pending messages of a queue are looked at: what comes after this due time and id."""

    due_at: str
    """As PostgreSQL wrote it, to the microsecond."""
    id: int = 0


BEGINNING: Final[Mapping[str, Start]] = dict.fromkeys(QUEUES, Start("-infinity"))
"""The starts from which every pending message is seen."""

END: Final = Start("infinity", 2**63 - 1)
"""The start from which none is."""


class Batch(NamedTuple):
    """The rows that were taken and, for each queue among them, the start behind its last row."""

    rows: Sequence[Row]
    ends: Mapping[str, Start]


class Suspect(NamedTuple):
    """A published row whose job may be gone: its lease is over, or it was pushed into another life of Redis."""

    row: Row
    same_epoch: bool


class Pruned(NamedTuple):
    """How many finished messages were deleted, and when the youngest of them was finished."""

    messages: int
    until: str | None
    """As PostgreSQL wrote it: somebody else may have finished one at a time that Python does not have."""


@dataclass(frozen=True, slots=True)
class Reaped:
    """A claim whose worker died, and what became of the message."""

    id: int
    status: str
    attempt: int


def take_batch(
    connection: DbConnection, size: int, due_before: float | None = None, starts: Mapping[str, Start] = BEGINNING
) -> Batch:
    """Lock up to `size` due messages: critical before default, the oldest first.

    When default has waited for STARVED_SECONDS a tenth of the batch is kept free for it, so that a critical queue that
    never empties does not starve it. SKIP LOCKED lets relays work side by side. While the breaker is open nothing is
    taken: see take_probe.

    Args:
        connection: inside a transaction; the locks last until its end.
        size: how many rows at the most.
        due_before: seconds since the epoch; without it everything due by now.
        starts: of each queue, what comes after its start.

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
                 AND (due_at, id) > (%(critical_start)s::timestamptz, %(critical_id)s::bigint)
                 AND NOT EXISTS (SELECT FROM outbox_breaker WHERE name = 'mail' AND opened_at IS NOT NULL)
               ORDER BY due_at, id
               LIMIT %(size)s - CASE WHEN EXISTS (
                         SELECT FROM outbox
                          WHERE status = 'pending' AND queue = 'default'
                            AND due_at < now() - make_interval(secs => %(starved)s)
                            AND (due_at, id) > (%(default_start)s::timestamptz, %(default_id)s::bigint)
                     ) THEN %(share)s ELSE 0 END
                 FOR UPDATE SKIP LOCKED
          ) AS critical
        UNION ALL
        SELECT id, generation, queue, due_at::text
          FROM (
              SELECT id, generation, queue, due_at
                FROM outbox
               WHERE status = 'pending' AND queue = 'default'
                 AND due_at <= coalesce(to_timestamp(%(before)s), now())
                 AND (due_at, id) > (%(default_start)s::timestamptz, %(default_id)s::bigint)
                 AND NOT EXISTS (SELECT FROM outbox_breaker WHERE name = 'mail' AND opened_at IS NOT NULL)
               ORDER BY due_at, id
               LIMIT %(size)s
                 FOR UPDATE SKIP LOCKED
          ) AS later
         LIMIT %(size)s
        """,
        {
            "before": due_before,
            "size": size,
            "share": share_of_default(size),
            "starved": STARVED_SECONDS,
            **_start_columns(starts),
        },
    ).fetchall()
    lasts = {row[2]: row for row in taken}
    return Batch(
        rows=[Row(id_, generation, queue) for id_, generation, queue, _ in taken],
        ends={queue: Start(due_at, id_) for queue, (id_, *_, due_at) in lasts.items()},
    )


def share_of_default(size: int) -> int:
    """Give how many rows of a batch are kept free for default when it has waited for too long."""
    return max(1, size // 10) if size > 1 else 0


def _start_columns(starts: Mapping[str, Start]) -> dict[str, str | int]:
    columns: dict[str, str | int] = {}
    for queue, start in starts.items():
        columns |= {f"{queue}_start": start.due_at, f"{queue}_id": start.id}
    return columns


def start_before_now(connection: DbConnection, seconds: float) -> Start | None:
    """Give the start from which is seen what was due so many seconds before this transaction began, or is due later.

    None while the breaker is open: then take_batch has taken nothing of what is due.
    """
    rows = connection.execute(
        """
        SELECT (now() - make_interval(secs => %s))::text
         WHERE NOT EXISTS (SELECT FROM outbox_breaker WHERE name = 'mail' AND opened_at IS NOT NULL)
        """,
        [seconds],
    ).fetchall()
    return Start(*rows[0]) if rows else None


def take_probe(connection: DbConnection, queues: Sequence[str] = QUEUES) -> list[Row]:
    """Lock one due message of these queues to try a mail server with that was unreachable, if it is time to try.

    The one that has been due for the longest time, of whichever queue: a probe that learned of an outage is due anew
    when it is put back, so that the probes take turns, and no message holds the road.

    The breaker's row is locked first, so that of several relays one sends the probe.
    """
    rows = connection.execute(
        """
        WITH breaker AS MATERIALIZED (
            SELECT name
              FROM outbox_breaker
             WHERE name = 'mail' AND opened_at IS NOT NULL AND probe_at <= clock_timestamp()
               FOR UPDATE SKIP LOCKED
        )
        SELECT id, generation, queue
          FROM (
              SELECT id, generation, queue, due_at
                FROM (
                    SELECT id, generation, queue, due_at
                      FROM outbox
                     WHERE status = 'pending' AND queue = 'critical' AND queue = ANY(%(queues)s)
                       AND due_at <= now() AND EXISTS (SELECT FROM breaker)
                     ORDER BY due_at, id
                     LIMIT 1
                       FOR UPDATE SKIP LOCKED
                ) AS critical
              UNION ALL
              SELECT id, generation, queue, due_at
                FROM (
                    SELECT id, generation, queue, due_at
                      FROM outbox
                     WHERE status = 'pending' AND queue = 'default' AND queue = ANY(%(queues)s)
                       AND due_at <= now() AND EXISTS (SELECT FROM breaker)
                     ORDER BY due_at, id
                     LIMIT 1
                       FOR UPDATE SKIP LOCKED
                ) AS later
          ) AS heads
         ORDER BY due_at, id
         LIMIT 1
        """,
        {"queues": list(queues)},
    ).fetchall()
    return [Row(*row) for row in rows]


def mark_probe(connection: DbConnection, message_id: int, patience_seconds: float) -> None:
    """Say which message is the probe; the next one may follow when this one was silent for `patience_seconds`."""
    connection.execute(
        """
        UPDATE outbox_breaker
           SET probe_id = %s, probe_at = clock_timestamp() + make_interval(secs => %s)
         WHERE name = 'mail' AND opened_at IS NOT NULL
        """,
        [message_id, patience_seconds],
    )


def mark_published(connection: DbConnection, ids: Sequence[int], epoch: str, lease_seconds: float) -> int:
    """Record that the jobs of these pending rows are on Redis; return how many rows that were."""
    return connection.execute(
        """
        UPDATE outbox
           SET status = 'published', broker_epoch = %s, published_at = clock_timestamp(),
               lease_until = clock_timestamp() + make_interval(secs => %s)
         WHERE id = ANY(%s::bigint[]) AND status = 'pending'
        """,
        [epoch, lease_seconds, _array(ids)],
    ).rowcount


@own_transaction
def next_due(connection: DbConnection, starts: Mapping[str, Start] = BEGINNING) -> float | None:
    """Give the seconds until the next message is due (negative: it is), or None when none is pending after the starts.

    While the breaker is open nothing is due before the next probe.
    """
    row = connection.execute(
        """
        SELECT extract(epoch FROM greatest(
                   due_at,
                   (SELECT probe_at FROM outbox_breaker WHERE name = 'mail' AND opened_at IS NOT NULL)
               ))::float8 - extract(epoch FROM clock_timestamp())::float8
          FROM (
              SELECT least(
                         (SELECT min(due_at) FROM outbox
                           WHERE status = 'pending' AND queue = 'critical' AND due_at >= %(critical_start)s),
                         (SELECT min(due_at) FROM outbox
                           WHERE status = 'pending' AND queue = 'default' AND due_at >= %(default_start)s)
                     ) AS due_at
          ) AS next
         WHERE due_at IS NOT NULL
        """,
        _start_columns(starts),
    ).fetchone()
    return None if row is None else row[0]


@own_transaction
def reap_running(connection: DbConnection, limit: int, grace_seconds: float = POSTMASTER_GRACE_SECONDS) -> list[Reaped]:
    """Take back the messages whose worker died: dead when their attempts are spent, else pending and due now.

    At the second death in a row a message is due at a random moment of the next lease. One that kills its worker takes
    all that the worker had in hand with it; coming back in step, they would die together until none has attempts left.

    The lease alone decides, by the database's clock. Rows that somebody holds locked are left for the next round.
    """
    # Claim and lease are anybody's: what they are apart may be thousands of years.
    rows = connection.execute(
        f"""
        WITH expired AS MATERIALIZED (
            SELECT id
              FROM outbox
             WHERE status = 'running' AND lease_until < (SELECT clock_timestamp())
               AND pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => %(grace)s)
             ORDER BY lease_until
             LIMIT %(limit)s
               FOR UPDATE SKIP LOCKED
        )
        UPDATE outbox AS o
           SET status = CASE WHEN attempt > max_retries THEN 'dead' ELSE 'pending' END,
               generation = CASE WHEN attempt > max_retries THEN generation ELSE {NEXT_GENERATION} END,
               due_at = CASE WHEN attempt > max_retries THEN due_at
                             WHEN last_error = %(reason)s
                                 THEN clock_timestamp() + random()
                                     * greatest(interval '0', least(interval '1 day', lease_until - claimed_at))
                             ELSE clock_timestamp() END,
               claim_token = NULL, lease_until = NULL, broker_epoch = NULL,
               last_error = %(reason)s,
               failures = {FAILURES_SO_FAR}
                   || jsonb_build_object('at', clock_timestamp(), 'attempt', attempt, 'reason', %(reason)s::text,
                                         'maybe_accepted', true)
          FROM expired
         WHERE o.id = expired.id AND o.status = 'running' AND o.lease_until < (SELECT clock_timestamp())
        RETURNING o.id, o.status, o.attempt
        """,  # noqa: S608 - two expressions of our own
        {"limit": limit, "grace": grace_seconds, "reason": _CRASH},
    ).fetchall()
    return [Reaped(*row) for row in rows]


@own_transaction
def find_suspects(connection: DbConnection, epoch: str, limit: int) -> list[Suspect]:
    """List published rows whose lease is over or that were pushed into another life of Redis than `epoch`."""
    # Three ranges of one index, each asked for by itself: of conditions joined by OR, PostgreSQL may make a filter over
    # all published rows. The time comes from a SELECT, since no index serves what may change from row to row.
    rows = connection.execute(
        """
        SELECT id, generation, queue, false FROM outbox WHERE status = 'published' AND broker_epoch < %(epoch)s
        UNION ALL
        SELECT id, generation, queue, false FROM outbox WHERE status = 'published' AND broker_epoch > %(epoch)s
        UNION ALL
        SELECT id, generation, queue, true
          FROM outbox
         WHERE status = 'published' AND broker_epoch = %(epoch)s AND lease_until < (SELECT clock_timestamp())
         LIMIT %(limit)s
        """,
        {"epoch": epoch, "limit": limit},
    ).fetchall()
    return [Suspect(Row(*row), same_epoch) for *row, same_epoch in rows]


@own_transaction
def renew_found(connection: DbConnection, rows: Sequence[Row], epoch: str, lease_seconds: float) -> int:
    """Give rows whose job stands in a list a new lease in the present epoch; return how many were renewed."""
    # The rows are locked in one order and without waiting: two relays that renew the same rows cannot deadlock, and a
    # row that a consumer is claiming needs no new lease.
    return connection.execute(
        """
        WITH found AS MATERIALIZED (
            SELECT o.id
              FROM outbox AS o
              JOIN unnest(%(ids)s::bigint[], %(generations)s::integer[]) AS job (id, generation) USING (id, generation)
             WHERE o.status = 'published'
             ORDER BY o.id
               FOR UPDATE OF o SKIP LOCKED
        )
        UPDATE outbox AS o
           SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s), broker_epoch = %(epoch)s
          FROM found
         WHERE o.id = found.id
        """,
        {**_columns(rows), "lease": lease_seconds, "epoch": epoch},
    ).rowcount


@own_transaction
def return_missing(connection: DbConnection, rows: Sequence[Row]) -> list[Row]:
    """Make rows pending again whose job Redis lost; return those that were still the same published life."""
    returned = connection.execute(
        f"""
        WITH missing AS MATERIALIZED (
            SELECT o.id, o.generation AS former
              FROM outbox AS o
              JOIN unnest(%(ids)s::bigint[], %(generations)s::integer[]) AS job (id, generation) USING (id, generation)
             WHERE o.status = 'published'
             ORDER BY o.id
               FOR UPDATE OF o SKIP LOCKED
        )
        UPDATE outbox AS o
           SET status = 'pending', generation = {NEXT_GENERATION}, lease_until = NULL, broker_epoch = NULL
          FROM missing
         WHERE o.id = missing.id
        RETURNING o.id, missing.former, o.queue
        """,  # noqa: S608 - an expression of our own
        _columns(rows),
    ).fetchall()
    return [Row(*row) for row in returned]


@own_transaction
def prune(connection: DbConnection, keep_days: float, limit: int, since: str | None = None) -> Pruned:
    """Delete up to `limit` finished messages older than `keep_days`, the oldest first. A live row is never touched.

    Args:
        connection: in autocommit mode.
        keep_days: the age from which messages go.
        limit: how many at the most.
        since: messages that were finished before this moment are not looked at.

    """
    row = connection.execute(
        """
        WITH old AS MATERIALIZED (
            SELECT id, finished_at
              FROM outbox_finished
             WHERE finished_at >= coalesce(%s::timestamptz, timestamptz '-infinity')
               AND finished_at < now() - make_interval(secs => %s)
             ORDER BY finished_at
             LIMIT %s
               FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM outbox_finished AS f USING old WHERE f.id = old.id
        )
        SELECT count(*), max(finished_at)::text FROM old
        """,
        [since, keep_days * 86_400, limit],
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate without GROUP BY has one row
    return Pruned(*row)


def _columns(rows: Sequence[Row]) -> dict[str, str]:
    return {"ids": _array([row.id for row in rows]), "generations": _array([row.generation for row in rows])}


def _array(numbers: Sequence[int]) -> str:
    """Write PostgreSQL's text form of an array: psycopg's own way looks at every element for quotes, at 1.5 us each."""
    return "{" + ",".join(map(str, numbers)) + "}"


@own_transaction
def clock(connection: DbConnection) -> float:
    """Give the database's time in seconds since the epoch."""
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return float(row[0])
