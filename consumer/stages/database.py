"""A connection to PostgreSQL that is kept open between transactions and replaced when it breaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from time import monotonic
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from shared.database.connections import (
    LOCK_SECONDS,
    DbConnection,
    UnsuitableDatabaseError,
    connect_as,
    keep_plans,
    transaction,
)
from shared.outage_causes import postgresql_cause

OVERTIME: Final = (psycopg.errors.IdleInTransactionSessionTimeout, psycopg.errors.QueryCanceled)
"""PostgreSQL ended a transaction that took too long, because of a slow statement or because this process stalled."""


class TaskConnection(DbConnection):
    """A connection whose transaction a task may use, and neither end nor hand on to another thread."""

    _is_lent = False
    _owner: int | None = None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Refuse to end the transaction until the block ends."""
        self._is_lent = True
        try:
            yield
        finally:
            self._is_lent = False

    def own(self) -> None:
        """Refuse all other threads from now on."""
        self._owner = get_ident()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - psycopg's signature has overloads
        """Refuse, in a thread that a task has left behind."""
        if self._owner not in {None, get_ident()}:
            raise psycopg.ProgrammingError("this connection belongs to the thread in which `prepare` was called")
        return super().cursor(*args, **kwargs)

    def commit(self) -> None:
        """Refuse, if it is lent."""
        self._refuse("commit")
        super().commit()

    def rollback(self) -> None:
        """Refuse, if it is lent."""
        self._refuse("rollback")
        super().rollback()

    def set_autocommit(self, value: bool) -> None:  # noqa: FBT001 - psycopg's signature
        """Refuse, if it is lent."""
        self._refuse("autocommit")
        super().set_autocommit(value)

    def close(self) -> None:
        """Refuse, if it is lent."""
        self._refuse("close")
        super().close()

    def _refuse(self, what: str) -> None:
        if self._is_lent:
            raise psycopg.ProgrammingError(
                f"{what} is refused: the worker ends this transaction when `prepare` has returned."
                " Raise an exception to roll it back, or use connection.transaction() for a part of it."
            )


class Database:
    """One connection, for one thread."""

    def __init__(self, database_url: str, *, any_encoding: bool = False) -> None:
        """Open nothing yet: the first transaction does.

        Args:
            database_url: where PostgreSQL is.
            any_encoding: accept any encoding, since no names are read or written (shared.database.connections.connect).

        """
        self._database_url = database_url
        self._any_encoding = any_encoding
        self._connection: TaskConnection | None = None
        self.busy_since: float | None = None
        """When (monotonic) the transaction in progress started; None between transactions."""
        self.has_failed = False
        """Whether the latest error came from this connection, and not from something else inside the transaction."""

    @contextmanager
    def transaction(self, *, lock_seconds: float = LOCK_SECONDS, also: bytes = b"") -> Iterator["TaskConnection"]:
        """Run one transaction that waits for each lock at most this long.

        After any error the connection is closed. `also` is as in shared.database.connections.transaction.

        Raises:
            psycopg.Error: the transaction was rolled back. If the answer to COMMIT was lost, it may have been
                committed: see UNREACHABLE.

        """
        self.busy_since = monotonic()
        self.has_failed = True
        try:
            connection = self._connection or self._open()
            connection.own()
            with transaction(connection, lock_seconds=lock_seconds, also=also):
                try:
                    yield connection
                except BaseException:
                    self.has_failed = connection.info.transaction_status != TransactionStatus.INTRANS
                    raise
        except BaseException:
            self.close()
            raise
        finally:
            self.busy_since = None

    def refuse_unsuitable(self) -> None:
        """Raise UnsuitableDatabaseError if this database can never be used. An outage raises nothing."""
        try:
            if self._connection is None:
                self._open()
        except UnsuitableDatabaseError:
            raise
        except psycopg.Error:
            return

    def answers(self) -> bool:
        """Return whether PostgreSQL can be used now. A standby cannot."""
        try:
            with self.transaction() as connection:
                return connection.execute("SHOW transaction_read_only").fetchone() == ("off",)
        except psycopg.Error:
            return False

    def _open(self) -> "TaskConnection":
        self._connection = connect_as(
            TaskConnection, self._database_url, "outbox-consumer", any_encoding=self._any_encoding
        )
        keep_plans(self._connection)
        return self._connection

    def cause(self, error: BaseException) -> str:
        """Return where this database is and why it cannot be used, without a secret or a value of a message."""
        return postgresql_cause(error, self._database_url)

    def close(self) -> None:
        """Close the connection. The next transaction opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
