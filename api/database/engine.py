"""The API's connection pool: one statement per use case where possible, and an error within seconds.

Connections are in autocommit mode, because most use cases are one statement; the others begin a transaction. Behind a
PgBouncer in transaction mode, session settings would leak to other clients, so there each statement is a transaction
that sets what it needs.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from select import POLLIN, poll
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from shared.database.connections import (
    check_encoding,
    conninfo,
    prepare_session,
    states_settings,
    transaction,
)
from shared.database.errors import UNREACHABLE
from shared.database.prompt_connection import ANSWER_SECONDS, PromptConnection
from shared.errors import OutboxError
from shared.outage_causes import postgresql_cause

LOCK_SECONDS: Final = 3
"""How long a statement waits for a lock: less than ANSWER_SECONDS, so that PostgreSQL ends the wait."""

_POOL_SECONDS: Final = 3.0
_AWAY: Final = (
    *UNREACHABLE,
    # Nothing was written; the operator has to grant the privilege.
    psycopg.errors.InsufficientPrivilege,
)

_LENT_BEFORE: Final = "lent before"
_ADDRESS: Final = "outbox_address"


class DatabaseUnavailableError(OutboxError):
    """PostgreSQL is unreachable or did not answer in time. The statement may have been committed."""

    def __init__(self, reason: str) -> None:
        """Store the reason, which goes to the log and contains nothing that a client sent."""
        self.reason = reason
        super().__init__(reason)


class SchemaMissingError(DatabaseUnavailableError):
    """A table, column or function is missing."""


@dataclass(frozen=True, slots=True)
class _Address:
    """The engine's URL, for the texts about outages."""

    url: str = field(repr=False)


def connect(database_url: str, *, answer_seconds: float = ANSWER_SECONDS) -> PromptConnection:
    """Open a connection, which gives up on a statement after answer_seconds.

    Raises:
        psycopg.OperationalError: PostgreSQL is unreachable, or the database is an UnsuitableDatabaseError.

    """
    connection = PromptConnection.connect(conninfo(database_url, "outbox-api"), autocommit=True)
    try:
        check_encoding(connection)
        prepare_session(connection, lock_seconds=LOCK_SECONDS)
        connection.answer_seconds = answer_seconds
    except BaseException:
        connection.close()
        raise
    return connection


def build_engine(
    database_url: str, *, answer_seconds: float = ANSWER_SECONDS, pool_seconds: float = _POOL_SECONDS
) -> Engine:
    """Return the pool. It connects on first use, so it can be built before a fork and without PostgreSQL.

    Args:
        database_url: the database.
        answer_seconds: how long a statement may take.
        pool_seconds: how long to wait for a connection while all of the pool are in use.

    """
    engine = create_engine(
        "postgresql+psycopg://",
        # libpq's URLs can name several hosts, SQLAlchemy's cannot.
        creator=lambda: connect(database_url, answer_seconds=answer_seconds),
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        use_native_hstore=False,
        # Parameters include addresses, which must not get into an error's text.
        hide_parameters=True,
        pool_timeout=pool_seconds,
        execution_options={_ADDRESS: _Address(database_url)},
    )
    event.listen(engine, "checkout", _replace_if_dead)
    return engine


def _replace_if_dead(
    connection: psycopg.Connection[Any], record: ConnectionPoolEntry, _borrowed: PoolProxiedConnection
) -> None:
    """Make the pool replace a connection that died while idle, so that a restart of PostgreSQL costs no signup.

    A server sends almost nothing to an idle client before it hangs up, so polling the socket is enough. pool_pre_ping
    would query it, a round trip that takes a fifth of a signup's write (docs/decisions/0021).
    """
    if connection.closed:
        # It was used without SQLAlchemy, which would have noticed.
        raise DisconnectionError("the connection is closed")
    if _LENT_BEFORE not in record.info:
        # Not checked when new: after two refusals in a row the pool raises an error of its own.
        record.info[_LENT_BEFORE] = True
        return
    poller = poll()
    poller.register(connection, POLLIN)
    if poller.poll(0):
        raise DisconnectionError("the server has ended this connection")


@contextmanager
def connected(engine: Engine, *, in_transaction: bool = False, is_deferred: bool = False) -> Iterator[Connection]:
    """Borrow a connection.

    Args:
        engine: the pool.
        in_transaction: begin a transaction, which a frozen process can hold open only briefly.
        is_deferred: the first statement opens the transaction (shared.database.connections.opening), which saves a
            round trip.

    Raises:
        DatabaseUnavailableError: there is no connection, or it was lost. It is unknown what was committed.

    """
    try:
        with engine.connect() as connection, _opened(connection, in_transaction, is_deferred):
            yield connection
    except PoolTimeoutError as exc:
        raise DatabaseUnavailableError("every connection of the pool is in use") from exc
    except (DBAPIError, psycopg.Error) as exc:
        error = exc.orig if isinstance(exc, DBAPIError) else exc
        if error is None:
            raise
        if isinstance(error, psycopg.errors.UndefinedTable):
            raise SchemaMissingError(cause_of(engine, error)) from exc
        if isinstance(error, _AWAY) or (isinstance(exc, DBAPIError) and exc.connection_invalidated):
            raise DatabaseUnavailableError(cause_of(engine, error)) from exc
        raise


def _opened(connection: Connection, in_transaction: bool, is_deferred: bool) -> AbstractContextManager[None]:  # noqa: FBT001 - as connected has them
    """Begin a transaction where one is requested, or where a pooler is in between and it has to set what it needs."""
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    if not in_transaction and not states_settings(driver):
        return nullcontext()
    return transaction(driver, lock_seconds=LOCK_SECONDS, is_deferred=is_deferred)


def cause_of(engine: Engine, error: BaseException) -> str:
    """Return the database's host and why it is unavailable. The text contains nothing that a client sent."""
    address: _Address = engine.get_execution_options()[_ADDRESS]
    return postgresql_cause(error, address.url)
