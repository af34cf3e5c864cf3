"""Lends a test's own connection to `prepare`, which must not end its transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from shared.database.connections import DbConnection

AnyConnection = Connection | Session | psycopg.Connection[Any]

_ENDS_IT: Final = frozenset({"commit", "rollback", "close", "set_autocommit", "autocommit"})
_TRANSACTION: Final = "SELECT pg_current_xact_id()"


@contextmanager
def lent(connection: AnyConnection | None) -> Iterator[DbConnection]:
    """Yield the connection in a transaction. It refuses to commit and to roll back.

    A transaction that is open already stays open, with what was written.

    Raises:
        RuntimeError: SQL has ended the transaction.

    """
    if connection is None:
        yield cast("DbConnection", _NoConnection())
        return
    driver = _driver_of(connection)
    with driver.transaction():
        before = driver.execute(_TRANSACTION).fetchone()
        yield cast("DbConnection", _LentConnection(driver))
        if driver.execute(_TRANSACTION).fetchone() != before:
            raise RuntimeError("the task ended the transaction itself: remove COMMIT and ROLLBACK from its SQL")


def _driver_of(connection: AnyConnection) -> psycopg.Connection[Any]:
    if isinstance(connection, Session):
        connection = connection.connection()
    if isinstance(connection, Connection):
        driver = connection.connection.driver_connection
        if not isinstance(driver, psycopg.Connection):
            raise TypeError("a task needs psycopg's driver: begin the URL of the engine with postgresql+psycopg://")
        return driver
    return connection


class _LentConnection:
    """A connection of psycopg whose transaction is somebody else's."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a connection
        if name in _ENDS_IT:
            raise psycopg.ProgrammingError(
                f"{name} is refused: the worker ends this transaction when `prepare` has returned."
                " Raise an exception to roll it back, or use connection.transaction() for a part of it."
            )
        return getattr(self._connection, name)


class _NoConnection:
    """What `prepare` gets where the test has given no connection."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a connection
        raise RuntimeError("the task uses context.connection: pass connection= to run_message")
