"""Connections to PostgreSQL and their transactions, with limits on what a frozen process can block."""

from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, Final, ParamSpec, TypeVar, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

DbConnection = psycopg.Connection[tuple[Any, ...]]

_Connection = TypeVar("_Connection", bound=DbConnection)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

IDLE_IN_TRANSACTION_SECONDS: Final = 5
"""After this time PostgreSQL ends a transaction whose client is silent, and releases its locks."""

LOCK_SECONDS: Final = 8
"""The longest wait for a row lock: longer than a frozen process of ours can hold one."""

_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    # A peer that disappeared (a pulled plug, a dropped NAT entry) is noticed within this time.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_SETTINGS: Final = {
    # The format of values in an answer.
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # The meaning of strings in a statement.
    "standard_conforming_strings": "on",
    # The limit of a statement. Those of a transaction and its locks are set where it begins.
    "statement_timeout": "0",
    # Compiling takes a hundred times as long as our longest statement, and PostgreSQL decides by estimates.
    "jit": "off",
}
"""Settings that our statements and psycopg depend on, whatever server, database or role have set."""

_SETTINGS_SINCE: Final = {14: {"idle_session_timeout": "0"}, 17: {"transaction_timeout": "0"}}
"""By the major version that introduced them."""

_ENCODING: Final = "UTF8"

_MARKER_NAME: Final = "outbox.transaction"
MARKER: Final = f"current_setting('{_MARKER_NAME}', true)"
"""The SQL that reads the present transaction's marker. It is empty in a transaction that was begun by anyone else."""


class UnsuitableDatabaseError(psycopg.OperationalError):
    """The encoding of the database cannot hold every name. No statement is run in it."""

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"this database has the encoding {encoding}, which cannot hold every name:"
            f" create one with ENCODING '{_ENCODING}' TEMPLATE template0, and name it in DATABASE_URL"
        )


def conninfo(database_url: str, application_name: str) -> str:
    """Return libpq's connection string: the URL, and our defaults for what it does not set."""
    given = conninfo_to_dict(database_url)
    missing = {name: value for name, value in _DEFAULTS.items() if name not in given}
    missing.setdefault("application_name", given.get("application_name") or application_name)
    # In the startup packet, so that it holds from the first byte on, and behind a PgBouncer too.
    return make_conninfo(database_url, **missing, client_encoding="UTF8")


def connect(database_url: str, application_name: str, *, any_encoding: bool = False) -> DbConnection:
    """Open a connection in autocommit mode, with the settings that our statements depend on.

    Args:
        database_url: where to connect to.
        application_name: the name in pg_stat_activity, unless the URL sets one.
        any_encoding: accept any encoding, because names are neither read nor written.

    Raises:
        psycopg.OperationalError: PostgreSQL is unreachable, or the database is an UnsuitableDatabaseError.

    """
    return connect_as(psycopg.Connection, database_url, application_name, any_encoding=any_encoding)


def connect_as(
    connection_class: type[_Connection], database_url: str, application_name: str, *, any_encoding: bool = False
) -> _Connection:
    """Do the same, with a class of connections of the caller's."""
    connection = connection_class.connect(conninfo(database_url, application_name), autocommit=True)
    try:
        if not any_encoding:
            check_encoding(connection)
        prepare_session(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def check_encoding(connection: psycopg.Connection[Any]) -> None:
    """Raise UnsuitableDatabaseError if names cannot be stored. PostgreSQL has sent the encoding when it connected."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != _ENCODING:
        raise UnsuitableDatabaseError(str(encoding))


def prepare_session(connection: psycopg.Connection[Any], *, lock_seconds: float = LOCK_SECONDS) -> None:
    """Set the session's settings; set none behind a pooler, which shares its sessions among clients.

    Behind a pooler each transaction sets them (`transaction`, `own_transaction`), and nothing is prepared: a statement
    that was prepared on one of the pooler's connections is unknown on the next.

    Args:
        connection: a new connection in autocommit mode.
        lock_seconds: the longest wait for a lock of a statement that is its own transaction.

    """
    if is_pooled(connection):
        connection.prepare_threshold = None
        return
    settings = {
        **_settings_of(connection.info.server_version),
        "default_transaction_isolation": "read committed",
        "lock_timeout": f"{lock_seconds * 1000:.0f}ms",
    }
    connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()).encode())


def keep_plans(connection: DbConnection) -> None:
    """Plan each statement with its index, whatever the statistics say.

    psycopg prepares statements that it executes often, and PostgreSQL keeps their plans. A plan that was made for an
    empty outbox would read the whole table at each execution, until an ANALYZE. Only for relay and worker, whose
    statements all have an index (docs/decisions/0017).
    """
    if not states_settings(connection):
        connection.execute("SET enable_seqscan = off")


def _settings_of(server_version: int) -> dict[str, str]:
    newer = [settings for major, settings in _SETTINGS_SINCE.items() if server_version >= major * 10_000]
    return dict(ChainMap(*newer, _SETTINGS))


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the connection goes through a pooler: then another process answers than the one that connected."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row != (connection.info.backend_pid,)


def states_settings(connection: psycopg.Connection[Any]) -> bool:
    """Return whether each transaction on this connection has to set the settings, because it goes through a pooler.

    It executes nothing: `prepare_session` has marked the connection.
    """
    return connection.prepare_threshold is None


def own_transaction(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a function whose statement is its own transaction, so that it has the settings behind a pooler too.

    Behind a pooler a transaction is opened around the call, unless one is open already. On a direct connection, whose
    session has the settings, nothing changes. The function's first argument is the connection.
    """

    @wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        connection = cast("DbConnection", args[0])
        if not states_settings(connection) or connection.info.transaction_status != TransactionStatus.IDLE:
            return function(*args, **kwargs)
        with transaction(connection):
            return function(*args, **kwargs)

    return call


@contextmanager
def transaction(
    connection: psycopg.Connection[Any],
    *,
    lock_seconds: float = LOCK_SECONDS,
    is_deferred: bool = False,
    also: bytes = b"",
) -> Iterator[None]:
    """Run a transaction that PostgreSQL itself ends if this process freezes in the middle of it.

    Args:
        connection: in autocommit mode, with no transaction open.
        lock_seconds: the longest wait for each lock.
        is_deferred: the caller's first statement opens it, together with `opening`.
        also: further statements for the round trip that opens it.

    Raises:
        psycopg.Error: it was rolled back; if the answer to COMMIT was lost, that is not known.

    """
    try:
        if not is_deferred:
            connection.execute(opening(connection, lock_seconds) + also)
        yield
    except BaseException:
        # With any other status the connection is broken or in the middle of a statement.
        if connection.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            connection.execute("ROLLBACK")
        raise
    commit(connection)


def opening(connection: psycopg.Connection[Any], lock_seconds: float) -> bytes:
    """Return the statements that begin a transaction, in one round trip."""
    return _opening(lock_seconds, connection.info.server_version if states_settings(connection) else None)


@cache
def _opening(lock_seconds: float, pooled_version: int | None) -> bytes:
    settings = {
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
        "lock_timeout": f"{lock_seconds * 1000:.0f}ms",
        **({} if pooled_version is None else _settings_of(pooled_version)),
    }
    local = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())
    return f"BEGIN ISOLATION LEVEL READ COMMITTED; {local}".encode()


def marking(marker: str) -> bytes:
    """Return the statement that gives a transaction its marker, letters and digits: MARKER reads it until the end."""
    return f"; SET LOCAL {_MARKER_NAME} = '{marker}'".encode()


def commit(connection: psycopg.Connection[Any]) -> None:
    """Commit. PostgreSQL answers ROLLBACK if the transaction had failed; then an error is raised."""
    if connection.execute("COMMIT").statusmessage != "COMMIT":
        raise psycopg.errors.InFailedSqlTransaction("the transaction had failed and was rolled back")
