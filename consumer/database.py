"""The consumer's connection to PostgreSQL: kept open, replaced when it breaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import psycopg

from consumer.task import DbConnection
from shared.database import connect, transaction

UNREACHABLE = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.IdleInTransactionSessionTimeout)
"""What psycopg raises when PostgreSQL is away, is going away, or ended our session."""


class Database:
    """One connection, for one thread."""

    def __init__(self, database_url: str) -> None:
        """Keep the address; the connection is opened at its first use."""
        self._database_url = database_url
        self._connection: DbConnection | None = None
        self.busy_since: float | None = None
        """Since when (monotonic) a transaction is under way, with all that is done inside it; None between two."""

    @contextmanager
    def transaction(self) -> Iterator[DbConnection]:
        """Run one transaction.

        Whatever goes wrong, the connection is not used again.

        Raises:
            psycopg.Error: it was rolled back, or (the answer to COMMIT was lost) nobody knows; see UNREACHABLE.

        """
        self.busy_since = monotonic()
        try:
            if self._connection is None:
                self._connection = connect(self._database_url, "outbox-consumer")
            with transaction(self._connection):
                yield self._connection
        except BaseException:
            self.close()
            raise
        finally:
            self.busy_since = None

    def answers(self) -> bool:
        """Tell whether PostgreSQL can be used at this moment."""
        try:
            with self.transaction():
                return True
        except psycopg.Error:
            return False

    def close(self) -> None:
        """Drop the connection; the next transaction opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
