"""Delete records of mails that no limit counts any more, in steps that lock few rows at a time."""

from typing import Final

from shared.database.connections import DbConnection, own_transaction

PRUNED_AT_ONCE: Final = 1000
_LEAST_DAYS: Final = 1.0

_CONDITIONS: Final = ("state <> 'discarded'", "state = 'discarded'")
"""The conditions of the two partial indexes on due_at."""


class MailPruner:
    """Deletes mails that were due before the window of every limit, and counts of hours that are over."""

    def __init__(self, unverified_days: float) -> None:
        # One day more than the limits count: the metrics read the last two days.
        self._days = max(_LEAST_DAYS, unverified_days) + 1

    def step(self, connection: DbConnection) -> bool:
        """Delete up to PRUNED_AT_ONCE rows of each kind, and return whether there are more. Raises psycopg.Error."""
        deleted = [_prune(connection, condition, self._days) for condition in _CONDITIONS]
        deleted.append(_prune_counts(connection))
        return max(deleted) == PRUNED_AT_ONCE


@own_transaction
def _prune(connection: DbConnection, condition: str, days: float) -> int:
    return connection.execute(
        f"""
        DELETE FROM verification_mails
         WHERE message_id IN (SELECT message_id
                                FROM verification_mails
                               WHERE {condition} AND due_at < now() - make_interval(secs => %s)
                               ORDER BY due_at
                               LIMIT %s
                                 FOR UPDATE SKIP LOCKED)
        """,  # noqa: S608 - a condition of our own
        [days * 86_400, PRUNED_AT_ONCE],
    ).rowcount


@own_transaction
def _prune_counts(connection: DbConnection) -> int:
    return connection.execute(
        """
        DELETE FROM mail_counts
         WHERE (scope, window_start, slot) IN (SELECT scope, window_start, slot
                                                 FROM mail_counts
                                                WHERE window_start < now() - interval '1 day'
                                                ORDER BY window_start
                                                LIMIT %s
                                                  FOR UPDATE SKIP LOCKED)
        """,
        [PRUNED_AT_ONCE],
    ).rowcount
