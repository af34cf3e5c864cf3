"""Showing that a relay works: a row in PostgreSQL, where the API, `stats` and `doctor` look.

The row is written after a pass that worked, so that a relay that only starts again and again, stands still, or cannot
use Redis grows old in it. Nothing else depends on it: a relay that cannot write it says so once and goes on.
"""

import os
import socket
from time import monotonic
from typing import Final

import psycopg
import structlog

from shared.database.connections import transaction
from shared.outage_causes import postgresql_reason
from shared.outbox.publishing import DbConnection

_log = structlog.get_logger(__name__)

BEAT_SECONDS: Final = 5.0
_FORGOTTEN_DAYS: Final = 1
_LOCK_SECONDS: Final = 1


class Heartbeat:
    """Writes this relay's row every BEAT_SECONDS."""

    def __init__(self) -> None:
        """Name this process."""
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self._beat_at = 0.0
        self._failure_told = False

    def beat(self, connection: DbConnection) -> None:
        """Write the row if it is time to: a pass has worked. Raises psycopg.Error when PostgreSQL is unreachable."""
        if monotonic() < self._beat_at:
            return
        try:
            with transaction(connection, lock_seconds=_LOCK_SECONDS):
                show_relay(connection, self.name)
        except psycopg.Error as exc:
            if connection.closed:
                raise
            self._tell(exc)
        else:
            self._failure_told = False
        self._beat_at = monotonic() + BEAT_SECONDS

    def _tell(self, exc: psycopg.Error) -> None:
        if not self._failure_told:
            # Somebody locks the row, the role may not write it, or schema.sql was not applied.
            _log.warning(
                "heartbeat.failed", error=postgresql_reason(exc), meaning="nobody can see this relay; it goes on"
            )
            self._failure_told = True


def show_relay(connection: DbConnection, name: str) -> None:
    """Say that this relay lives; forget those that were not seen for a day."""
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
