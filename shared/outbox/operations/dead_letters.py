"""The statements for dead letters: list, count, retry, discard.

A dead letter stays until it is retried or discarded. Pruning never deletes it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import LARGEST_PAYLOAD_BYTES, NEXT_GENERATION, WITHOUT_COUNTS, insert_finished, moment
from shared.outbox.operations.stats import COUNTED_EXACTLY

RETRIED_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message whose attempts are spent, or that can never succeed.

    Attributes:
        maybe_accepted: the mail server may have accepted the mail at the last attempt: a retry may send a second copy.

    """

    id: int
    task: str
    queue: str
    attempts: int
    created_at: datetime | None
    reason: str
    maybe_accepted: bool


@own_transaction
def list_dead(connection: DbConnection, limit: int) -> list[DeadLetter]:
    """Return up to `limit` dead letters, the oldest first."""
    rows = connection.execute(
        f"""
        SELECT id, task, queue, attempt, {moment("created_at")}, last_error,
               coalesce(failures -> -1 -> 'maybe_accepted' = 'true', false)
          FROM outbox
         WHERE status = 'dead'
         ORDER BY id
         LIMIT %s
        """,  # noqa: S608 - an expression of our own
        [limit],
    ).fetchall()
    return [DeadLetter(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class DeadCount:
    """The number of dead letters, and whether all of them were counted."""

    number: int
    is_all: bool

    def __str__(self) -> str:
        """Return the number as text, with "more than" if not all were counted."""
        return str(self.number) if self.is_all else f"more than {self.number}"


@own_transaction
def count_dead(connection: DbConnection) -> DeadCount:
    """Count the dead letters, up to COUNTED_EXACTLY."""
    # The order of the partial index: without it PostgreSQL may read the whole table.
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM outbox WHERE status = 'dead' ORDER BY id LIMIT %s + 1) AS first",
        [COUNTED_EXACTLY],
    ).fetchone()
    number = 0 if row is None else int(row[0])
    return DeadCount(min(number, COUNTED_EXACTLY), is_all=number <= COUNTED_EXACTLY)


def retry(connection: DbConnection, message_id: int) -> bool:
    """Make one dead letter pending again, with all its attempts. Return False when it is none, or is_too_large."""
    return bool(_retry(connection, message_id, message_id, 1))


def retry_all(connection: DbConnection, *, at_once: int = RETRIED_AT_ONCE) -> int:
    """Make every dead letter pending again, in steps that lock few rows at a time; return how many.

    Each is retried once: one that dies again meanwhile stays dead. So do those whose payload is too large.
    """
    [(newest,)] = connection.execute("SELECT coalesce(max(id), 0) FROM outbox WHERE status = 'dead'").fetchall()
    total = last = 0
    while step := _retry(connection, last + 1, newest, at_once):
        total += len(step)
        last = max(step)
    return total


@own_transaction
def _retry(connection: DbConnection, first_id: int, last_id: int, limit: int) -> list[int]:
    # A new generation: jobs of former generations that are still in Redis have other ids.
    retried = connection.execute(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT id
              FROM outbox
             WHERE status = 'dead' AND id BETWEEN %(first)s AND %(last)s
               AND pg_column_size(payload) <= {LARGEST_PAYLOAD_BYTES}
             ORDER BY id
             LIMIT %(limit)s
               FOR UPDATE
        )
        UPDATE outbox AS o
           SET status = 'pending', generation = {NEXT_GENERATION}, attempt = 0, due_at = now(),
               failures = {WITHOUT_COUNTS}
          FROM chosen
         WHERE o.id = chosen.id AND o.status = 'dead'
        RETURNING o.id
        """,  # noqa: S608 - expressions of our own
        {"first": first_id, "last": last_id, "limit": limit},
    ).fetchall()
    return [id_ for (id_,) in retried]


@own_transaction
def discard(connection: DbConnection, message_id: int, reason: str) -> bool:
    """Move a dead or pending message into history, with the reason. Return False in any other state."""
    discarded = connection.execute(
        f"""
        WITH gone AS (
            DELETE FROM outbox WHERE id = %s AND status IN ('dead', 'pending') RETURNING *
        )
        {insert_finished("gone", status="'discarded'", last_error="%s")}
        """,  # noqa: S608 - expressions of our own
        [message_id, f"discarded: {reason}"],
    )
    return discarded.rowcount == 1


@own_transaction
def is_too_large(connection: DbConnection, message_id: int) -> bool:
    """Return whether a dead letter's payload is larger than a message may have, so that it can only be discarded."""
    row = connection.execute(
        "SELECT pg_column_size(payload) > %s FROM outbox WHERE id = %s AND status = 'dead'",
        [LARGEST_PAYLOAD_BYTES, message_id],
    ).fetchone()
    return row is not None and bool(row[0])


@own_transaction
def status_of(connection: DbConnection, message_id: int) -> str | None:
    """Return a message's status, or None if there is no such message."""
    row = connection.execute("SELECT status FROM outbox_messages WHERE id = %s", [message_id]).fetchone()
    return None if row is None else str(row[0])
