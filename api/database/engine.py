"""The API's way to PostgreSQL: a small pool, one statement a use case, and an answer within seconds.

A connection is in autocommit mode, since most use cases are one statement; the others begin a transaction. Behind a
PgBouncer that pools transactions, where the settings of a session would be handed on to strangers, each is a
transaction that states what it depends on.
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
from shared.database.prompt_connection import PromptConnection
from shared.errors import OutboxError
from shared.outage_causes import postgresql_cause

LOCK_SECONDS: Final = 3
"""How long a statement waits for a row that somebody else holds: below ANSWER_SECONDS, so that PostgreSQL ends it."""

_POOL_SECONDS: Final = 3.0
_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    # A primary that became a standby; the next connection finds the new one.
    psycopg.errors.ReadOnlySqlTransaction,
    # Nothing was written, and it is for the operator to mend.
    psycopg.errors.InsufficientPrivilege,
)

_LENT_BEFORE: Final = "lent before"
_ADDRESS: Final = "outbox_address"


class DatabaseUnavailableError(OutboxError):
    """PostgreSQL is away or did not answer in time. What was asked of it may have been committed."""

    def __init__(self, reason: str) -> None:
        """Keep why, for the log; it holds nothing that a client sent."""
        self.reason = reason
        super().__init__(reason)


class SchemaMissingError(DatabaseUnavailableError):
    """The database has no tables yet."""


@dataclass(frozen=True, slots=True)
class _Address:
    """Where the engine connects to, for the words about an outage."""

    url: str = field(repr=False)


def connect(database_url: str) -> PromptConnection:
    """Open a connection.

    Raises:
        psycopg.OperationalError: PostgreSQL is unreachable, or the database is an UnsuitableDatabaseError.

    """
    connection = PromptConnection.connect(conninfo(database_url, "outbox-api"), autocommit=True)
    try:
        check_encoding(connection)
        prepare_session(connection, lock_seconds=LOCK_SECONDS)
    except BaseException:
        connection.close()
        raise
    return connection


def build_engine(database_url: str) -> Engine:
    """Build the pool. It connects at its first use, so that it may be built before a fork or without PostgreSQL."""
    engine = create_engine(
        "postgresql+psycopg://",
        # SQLAlchemy's own URL type cannot hold several hosts; libpq's can.
        creator=lambda: connect(database_url),
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        use_native_hstore=False,
        # An error's text shall not hold an address.
        hide_parameters=True,
        pool_timeout=_POOL_SECONDS,
        execution_options={_ADDRESS: _Address(database_url)},
    )
    event.listen(engine, "checkout", _replace_if_dead)
    return engine


def _replace_if_dead(
    connection: psycopg.Connection[Any], record: ConnectionPoolEntry, _borrowed: PoolProxiedConnection
) -> None:
    """Let the pool open another connection in place of one that died in it: a restart shall cost no signup.

    A server hardly says anything to an idle client but that it leaves, so a look at the socket is enough. pool_pre_ping
    would ask it, in a round trip that takes a fifth of a signup's write (docs/decisions/0021).
    """
    if connection.closed:
        # By us: it was used without SQLAlchemy, which would have noticed.
        raise DisconnectionError("the connection is closed")
    if _LENT_BEFORE not in record.info:
        # A new one is not looked at: the pool gives up, with an error of its own, when it is refused twice.
        record.info[_LENT_BEFORE] = True
        return
    look = poll()
    look.register(connection, POLLIN)
    if look.poll(0):
        raise DisconnectionError("the server has ended this connection")


@contextmanager
def connected(engine: Engine, *, in_transaction: bool = False, is_deferred: bool = False) -> Iterator[Connection]:
    """Borrow a connection.

    Args:
        engine: the pool.
        in_transaction: several statements are one transaction, which a frozen process holds open for a moment only.
        is_deferred: the first of them opens it (shared.database.connections.opening), which saves a round trip.

    Raises:
        DatabaseUnavailableError: there is no connection, or it was lost meanwhile. Nothing is known to be committed.

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
    """Begin a transaction where one is asked for, or where a pooler stands in between: there it states the settings."""
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    if not in_transaction and not states_settings(driver):
        return nullcontext()
    return transaction(driver, lock_seconds=LOCK_SECONDS, is_deferred=is_deferred)


def cause_of(engine: Engine, error: BaseException) -> str:
    """Return where the engine's database is and why it cannot be used; it holds nothing that a client sent."""
    address: _Address = engine.get_execution_options()[_ADDRESS]
    return postgresql_cause(error, address.url)
