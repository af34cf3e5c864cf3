"""The statement that deletes old finished messages."""

from typing import NamedTuple

from shared.database.connections import DbConnection, own_transaction


class Pruned(NamedTuple):
    """The number of finished messages that were deleted, and when the youngest of them was finished."""

    messages: int
    until: str | None
    """As PostgreSQL wrote it: other programs may have written times that Python cannot hold."""


@own_transaction
def prune(connection: DbConnection, keep_days: float, limit: int, since: str | None = None) -> Pruned:
    """Delete up to `limit` finished messages older than `keep_days`, the oldest first. Live rows are never deleted.

    Args:
        connection: in autocommit mode.
        keep_days: the age in days from which messages are deleted.
        limit: the largest number of messages.
        since: where the search begins; messages that were finished before it are not read.

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
