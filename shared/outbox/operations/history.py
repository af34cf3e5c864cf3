"""The statements that list messages for an operator, and that append finished ones again (replay).

Finished rows never change. A replay appends new messages with the same task and payload.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.rows import class_row, dict_row

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import (
    FINISHED_STATUSES,
    LARGEST_NUMBER,
    LARGEST_PAYLOAD_BYTES,
    LIVE_STATUSES,
    moment,
    parse_failures,
)

_TIMES: Final = ", ".join(f"{moment(name)} AS {name}" for name in ("created_at", "due_at", "finished_at"))
"""A message may have an infinite due time, which Python cannot hold; then it is shown without one."""

_MORE_TIMES: Final = ", ".join(f"{moment(name)} AS {name}" for name in ("published_at", "claimed_at", "lease_until"))


@dataclass(frozen=True, slots=True)
class Listed:
    """A message as a list shows it."""

    id: int
    task: str
    queue: str
    destination: str | None
    status: str
    attempts: int
    created_at: datetime | None
    due_at: datetime | None
    finished_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Range:
    """The finished messages of one task that finished at or after `since` and before `until`."""

    task: str
    since: datetime
    until: datetime
    statuses: tuple[str, ...]


@own_transaction
def list_messages(
    connection: DbConnection,
    limit: int,
    *,
    statuses: Sequence[str],
    queue: str | None,
    task: str | None,
    destination: str | None = None,
) -> list[Listed]:
    """Return messages, the newest first. Only the tables that can hold these statuses are read."""
    filters = {"limit": limit, "statuses": list(statuses), "queue": queue, "task": task, "destination": destination}
    found: list[Listed] = []
    with connection.cursor(row_factory=class_row(Listed)) as cursor:
        if set(LIVE_STATUSES) & set(statuses):
            found += cursor.execute(_newest("outbox"), filters).fetchall()
        if set(FINISHED_STATUSES) & set(statuses):
            found += cursor.execute(_newest("outbox_finished"), filters).fetchall()
    return sorted(found, key=lambda each: each.id, reverse=True)[:limit]


def _newest(table: str) -> str:
    return f"""
        SELECT id, task, queue, destination, status, attempt AS attempts, {_TIMES}, last_error
          FROM {table}
         WHERE status = ANY(%(statuses)s)
           AND (%(queue)s::text IS NULL OR queue = %(queue)s)
           AND (%(task)s::text IS NULL OR task = %(task)s)
           AND (%(destination)s::text IS NULL OR destination = %(destination)s)
         ORDER BY id DESC
         LIMIT %(limit)s
    """  # noqa: S608 - a table's name and two expressions of our own


@own_transaction
def read_message(connection: DbConnection, message_id: int) -> dict[str, Any] | None:
    """Return everything about a message but its payload; None when there is no such message."""
    with connection.cursor(row_factory=dict_row) as cursor:
        message = cursor.execute(
            f"""
            SELECT id, task, queue, status, attempt AS attempts, max_retries, generation, {_TIMES}, {_MORE_TIMES},
                   last_error, failures::text, traceparent, uid, destination, dedup_key
              FROM outbox_messages
             WHERE id = %s
            """,  # noqa: S608 - two expressions of our own
            [message_id],
        ).fetchone()
    if message is not None:
        message["failures"] = parse_failures(message["failures"])
    return message


@own_transaction
def count_finished(connection: DbConnection, chosen: Range, at_most: int) -> int:
    """Return the number of finished messages that a replay would append; more than `at_most` are not counted.

    Messages whose payload is larger than a message may have now are left out.
    """
    row = connection.execute(
        """
        SELECT count(*)
          FROM (SELECT FROM outbox_finished
                 WHERE task = %(task)s AND finished_at >= %(since)s AND finished_at < %(until)s
                   AND status = ANY(%(statuses)s) AND pg_column_size(payload) <= %(largest)s
                 LIMIT %(at_most)s + 1) AS found
        """,
        {**_bounds(chosen), "at_most": at_most},
    ).fetchone()
    return 0 if row is None else int(row[0])


@own_transaction
def replay(connection: DbConnection, chosen: Range) -> int:
    """Append a new message for each finished one of the range, all or none, and return how many.

    The oldest is appended first. The new messages have new ids, and so new Message-IDs and links. The accounts of mails
    are locked first, as by every session that appends a mail, so that none of them is deleted meanwhile.
    """
    return connection.execute(
        """
        WITH accounts AS MATERIALIZED (
            SELECT username
              FROM users
             WHERE username IN (
                       SELECT payload ->> 'username'
                         FROM outbox_finished
                        WHERE starts_with(task, 'task:send_')
                          AND task = %(task)s AND finished_at >= %(since)s AND finished_at < %(until)s
                          AND status = ANY(%(statuses)s) AND pg_column_size(payload) <= %(largest)s)
               FOR KEY SHARE
        )
        INSERT INTO outbox (task, payload, queue, max_retries, destination)
        SELECT task, payload, queue,
               CASE WHEN max_retries IS NOT NULL THEN least(max_retries, %(retries)s) END, destination
          FROM outbox_finished
         WHERE (SELECT count(*) FROM accounts) >= 0
           AND task = %(task)s AND finished_at >= %(since)s AND finished_at < %(until)s
           AND status = ANY(%(statuses)s) AND pg_column_size(payload) <= %(largest)s
         ORDER BY finished_at, id
        """,
        _bounds(chosen),
    ).rowcount


def _bounds(chosen: Range) -> dict[str, Any]:
    return {
        "task": chosen.task,
        "since": chosen.since,
        "until": chosen.until,
        "statuses": list(chosen.statuses),
        "largest": LARGEST_PAYLOAD_BYTES,
        "retries": LARGEST_NUMBER,
    }
