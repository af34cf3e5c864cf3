"""The consumer's connection to PostgreSQL: kept open, replaced when it breaks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

    @contextmanager
    def transaction(self) -> Iterator[DbConnection]:
        """Run one transaction.

        Raises:
            psycopg.Error: it was rolled back, or (the answer to COMMIT was lost) nobody knows; see UNREACHABLE.

        """
        if self._connection is None:
            self._connection = connect(self._database_url, "outbox-consumer")
        try:
            with transaction(self._connection):
                yield self._connection
        except psycopg.Error:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection; the next transaction opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def pauses(longest_seconds: float) -> Iterator[float]:
    """Give the pauses between tries to reach PostgreSQL: 0.1, 0.2, 0.4 … seconds."""
    seconds = 0.1
    while True:
        yield min(seconds, longest_seconds)
        seconds *= 2


Sleeper = Callable[[float], None]
"""How a pause is slept: a worker that is told to stop wants to wake up."""
