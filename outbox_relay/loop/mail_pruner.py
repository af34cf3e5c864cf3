"""What was asked of each mailbox leaves when it counts in no limit any more, in steps so small that nobody waits."""

from typing import Final

import psycopg
import structlog

from shared.database.connections import own_transaction
from shared.outbox.publishing import DbConnection

PRUNED_AT_ONCE: Final = 1000
_LEAST_DAYS: Final = 1.0

_log = structlog.get_logger(__name__)


class MailPruner:
    """Deletes mails that were due before any window of a limit began, and counts of hours that are over."""

    def __init__(self, unverified_days: float) -> None:
        """Keep how long a mail counts."""
        # A day longer: the metrics look back two days.
        self._days = max(_LEAST_DAYS, unverified_days) + 1

    def step(self, connection: DbConnection) -> bool:
        """Delete up to PRUNED_AT_ONCE rows of each kind, and return whether there are more. Raises psycopg.Error."""
        try:
            deleted = [_prune(connection, condition, self._days) for condition in _CONDITIONS]
            deleted.append(_prune_counts(connection))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable) as exc:
            # Of a role or a schema of the version before: messages do not wait for it.
            _log.error(
                "verification_mails.not_pruned",
                error=type(exc).__name__,
                meaning="run docs/roles.sql and the migrations",
            )
            return False
        return max(deleted) == PRUNED_AT_ONCE


_CONDITIONS: Final = ("state <> 'discarded'", "state = 'discarded'")
"""As the indexes on due_at have them."""


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
