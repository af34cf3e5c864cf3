"""The relay's heartbeat: a row in PostgreSQL, which the API, `stats` and `doctor` read.

It is written after each pass that worked, so that the row of a relay that crashes at its start, hangs, or cannot use
Redis becomes old. Nothing else depends on it: a relay that cannot write it logs that once and continues.
"""

import os
import socket
from time import monotonic
from typing import Final

import psycopg
import structlog

from shared.database.connections import DbConnection, transaction
from shared.outage_causes import postgresql_reason

_log = structlog.get_logger(__name__)

_FORGOTTEN_DAYS: Final = 1
_LOCK_SECONDS: Final = 1


class Heartbeat:
    """Writes this relay's row at most every `beat_seconds`."""

    def __init__(self, beat_seconds: float) -> None:
        self._beat_seconds = beat_seconds
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self._beat_at = 0.0
        self._failure_logged = False

    def beat(self, connection: DbConnection) -> None:
        """Write the row if it is time to. Raises psycopg.Error when PostgreSQL is unreachable."""
        if monotonic() < self._beat_at:
            return
        try:
            with transaction(connection, lock_seconds=_LOCK_SECONDS):
                write_heartbeat(connection, self.name)
        except psycopg.Error as exc:
            if connection.closed:
                raise
            self._log_failure(exc)
        else:
            self._failure_logged = False
        self._beat_at = monotonic() + self._beat_seconds

    def _log_failure(self, exc: psycopg.Error) -> None:
        if not self._failure_logged:
            # The row is locked, the role may not write it, or the table does not exist.
            _log.warning(
                "heartbeat.failed",
                error=postgresql_reason(exc),
                meaning="metrics and doctor do not see this relay; it continues",
            )
            self._failure_logged = True


def write_heartbeat(connection: DbConnection, name: str) -> None:
    """Write the relay's row with the current time, and delete rows that are older than a day."""
    connection.execute(
        """
        WITH old AS MATERIALIZED (
            SELECT name FROM outbox_relays WHERE seen_at < now() - make_interval(days => %s) FOR UPDATE SKIP LOCKED
        ), forgotten AS (
            DELETE FROM outbox_relays AS r USING old WHERE r.name = old.name AND r.name <> %s
        )
        INSERT INTO outbox_relays AS r (name, seen_at) VALUES (%s, clock_timestamp())
            ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at
        """,
        [_FORGOTTEN_DAYS, name, name],
    )
