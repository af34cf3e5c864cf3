"""The consumer's connection to PostgreSQL: kept open, replaced when it breaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import psycopg

from shared.database.connections import (
    LOCK_SECONDS,
    DbConnection,
    UnsuitableDatabaseError,
    connect,
    keep_plans,
    transaction,
)
from shared.outage_causes import postgresql_cause

LOCKED: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
"""Somebody holds a row for longer than we want to wait."""

OVERTIME: Final = (psycopg.errors.IdleInTransactionSessionTimeout, psycopg.errors.QueryCanceled)
"""PostgreSQL ended a transaction that took too long, be it that this process stood still."""

UNREACHABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
)
"""PostgreSQL is away, is going away, has ended our session, or is a standby. LOCKED and QueryCanceled are among its
OperationalErrors: where they matter they have to be caught first."""


class Database:
    """One connection, for one thread."""

    def __init__(self, database_url: str, *, any_encoding: bool = False) -> None:
        """Keep the address; the connection is opened at its first use.

        Args:
            database_url: where PostgreSQL is.
            any_encoding: names are neither read nor written (shared.database.connections.connect).

        """
        self._database_url = database_url
        self._any_encoding = any_encoding
        self._connection: DbConnection | None = None
        self.busy_since: float | None = None
        """Since when (monotonic) a transaction is under way, with all that is done inside it; None between two."""

    @contextmanager
    def transaction(self, *, lock_seconds: float = LOCK_SECONDS) -> Iterator[DbConnection]:
        """Run one transaction that waits for each lock for so many seconds at the most.

        Whatever goes wrong, the connection is not used again.

        Raises:
            psycopg.Error: it was rolled back, or (the answer to COMMIT was lost) nobody knows; see UNREACHABLE.

        """
        self.busy_since = monotonic()
        try:
            connection = self._connection or self._open()
            with transaction(connection, lock_seconds=lock_seconds):
                yield connection
        except BaseException:
            self.close()
            raise
        finally:
            self.busy_since = None

    def refuse_unsuitable(self) -> None:
        """Raise UnsuitableDatabaseError where the database cannot be used whatever happens; an outage is none."""
        try:
            if self._connection is None:
                self._open()
        except UnsuitableDatabaseError:
            raise
        except psycopg.Error:
            return

    def answers(self) -> bool:
        """Tell whether PostgreSQL can be used at this moment; a standby cannot."""
        try:
            with self.transaction() as connection:
                return connection.execute("SHOW transaction_read_only").fetchone() == ("off",)
        except psycopg.Error:
            return False

    def _open(self) -> DbConnection:
        self._connection = connect(self._database_url, "outbox-consumer", any_encoding=self._any_encoding)
        keep_plans(self._connection)
        return self._connection

    def cause(self, error: BaseException) -> str:
        """Return where this database is and why it cannot be used; it holds no secret and no value of a message."""
        return postgresql_cause(error, self._database_url)

    def close(self) -> None:
        """Drop the connection; the next transaction opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
