"""The statements for dead letters: list, count, retry, discard.

A dead letter stays until it is retried or discarded. Pruning never deletes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import LARGEST_PAYLOAD_BYTES, NEXT_GENERATION, WITHOUT_COUNTS, insert_finished, moment
from shared.outbox.operations.failure_groups import GROUP_KEY, IS_DEAD
from shared.outbox.operations.stats import COUNTED_EXACTLY

CHANGED_AT_ONCE: Final = 1000
"""The dead letters that one step of many retries or discards, in a transaction of its own."""


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


@dataclass(frozen=True, slots=True)
class Selection:
    """All dead letters, or those of one group, that were there at one moment.

    Attributes:
        group: the hash of the group, as of `group_key`; None for every dead letter.
        newest_id: the id of the newest of them. A message that dies again during a retry is not retried again.

    """

    group: int | None
    newest_id: int


@own_transaction
def select_dead(connection: DbConnection, group: int | None = None) -> Selection:
    """Return the dead letters that are there now, for retry_selected and discard_selected."""
    [(newest_id,)] = connection.execute(
        f"SELECT coalesce(max(id), 0) FROM outbox WHERE {_chosen(group)}",  # noqa: S608 - our own
        {"group": group},
    ).fetchall()
    return Selection(group, int(newest_id))


@own_transaction
def count_selected(connection: DbConnection, selection: Selection) -> int:
    """Return the number of these dead letters, which takes a second for a million."""
    [(number,)] = connection.execute(
        f"""
        SELECT count(*) FROM outbox WHERE {_chosen(selection.group)} AND id <= %(newest)s
        """,  # noqa: S608 - our own
        {"group": selection.group, "newest": selection.newest_id},
    ).fetchall()
    return int(number)


def retry(connection: DbConnection, message_id: int) -> bool:
    """Make one dead letter pending again, with all its attempts. Return False when it is none, or is_too_large."""
    return bool(_retry(connection, Selection(None, message_id), message_id, 1))


def retry_selected(connection: DbConnection, selection: Selection, *, at_once: int = CHANGED_AT_ONCE) -> Iterator[int]:
    """Make dead letters pending again, in steps that lock few rows at a time; yield the number of each step.

    Each is retried once: one that dies again meanwhile stays dead. So do those whose payload is too large.
    """
    last = 0
    while step := _retry(connection, selection, last + 1, at_once):
        yield len(step)
        last = max(step)


@own_transaction
def _retry(connection: DbConnection, selection: Selection, first_id: int, limit: int) -> list[int]:
    # A new generation: jobs of former generations that are still in Redis have other ids.
    retried = connection.execute(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT id
              FROM outbox
             WHERE {_chosen(selection.group)} AND id BETWEEN %(first)s AND %(last)s
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
        {"group": selection.group, "first": first_id, "last": selection.newest_id, "limit": limit},
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


def discard_selected(
    connection: DbConnection, selection: Selection, reason: str, *, at_once: int = CHANGED_AT_ONCE
) -> Iterator[int]:
    """Move dead letters into history, with the reason, in steps like retry_selected; yield the number of each step."""
    last = 0
    while step := _discard(connection, selection, reason, last + 1, at_once):
        yield len(step)
        last = max(step)


@own_transaction
def _discard(connection: DbConnection, selection: Selection, reason: str, first_id: int, limit: int) -> list[int]:
    discarded = connection.execute(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT id
              FROM outbox
             WHERE {_chosen(selection.group)} AND id BETWEEN %(first)s AND %(last)s
             ORDER BY id
             LIMIT %(limit)s
               FOR UPDATE
        ), gone AS (
            DELETE FROM outbox AS o USING chosen WHERE o.id = chosen.id AND o.status = 'dead' RETURNING o.*
        )
        {insert_finished("gone", status="'discarded'", last_error="%(reason)s")}
        RETURNING id
        """,  # noqa: S608 - expressions of our own
        {
            "group": selection.group,
            "first": first_id,
            "last": selection.newest_id,
            "limit": limit,
            "reason": f"discarded: {reason}",
        },
    ).fetchall()
    return [id_ for (id_,) in discarded]


def _chosen(group: int | None) -> str:
    return "status = 'dead'" if group is None else f"{IS_DEAD} AND {GROUP_KEY} = %(group)s"


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
