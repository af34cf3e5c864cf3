"""Connections to PostgreSQL: how the long-lived processes hold them, and what a frozen process may hold up."""

from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, Final, ParamSpec, TypeVar, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

DbConnection = psycopg.Connection[tuple[Any, ...]]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

IDLE_IN_TRANSACTION_SECONDS: Final = 5
"""After this long PostgreSQL ends a transaction whose client has gone silent, and with it the locks it held."""

LOCK_SECONDS: Final = 8
"""The longest wait for a row: longer than a frozen process of ours can hold one, shorter than a human's session."""

_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    # A peer that vanished without a word (a pulled plug, a dropped NAT entry) is noticed within this time.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_SETTINGS: Final = {
    # What a value looks like in an answer.
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # What a text means in a statement.
    "standard_conforming_strings": "on",
    # How long a statement may take; what limits a transaction and its locks is set where it begins.
    "statement_timeout": "0",
    # Compiling takes a hundred times as long as the longest of our statements, and PostgreSQL decides by estimates.
    "jit": "off",
}
"""What our statements and psycopg depend on, whatever server, database or role have set. search_path is as given."""

_SETTINGS_SINCE: Final = {14: {"idle_session_timeout": "0"}, 17: {"transaction_timeout": "0"}}
"""By the major version that brought them."""

_ENCODING: Final = "UTF8"


class UnsuitableDatabaseError(psycopg.OperationalError):
    """The database cannot hold what people are called: no statement is run in it."""

    def __init__(self, encoding: str) -> None:
        """Name the encoding, and what mends it."""
        super().__init__(
            f"this database has the encoding {encoding}, which cannot hold every name:"
            f" make one with ENCODING '{_ENCODING}' TEMPLATE template0, and name it in DATABASE_URL"
        )


def conninfo(database_url: str, application_name: str) -> str:
    """Return libpq's connection string: what the URL says, and our defaults for what it leaves open."""
    given = conninfo_to_dict(database_url)
    missing = {name: value for name, value in _DEFAULTS.items() if name not in given}
    missing.setdefault("application_name", given.get("application_name") or application_name)
    # In the startup packet, so that it holds from the first byte on, and behind a PgBouncer too.
    return make_conninfo(database_url, **missing, client_encoding="UTF8")


def connect(database_url: str, application_name: str, *, any_encoding: bool = False) -> DbConnection:
    """Open a connection in autocommit mode, with the settings that our statements depend on.

    Args:
        database_url: where to connect to.
        application_name: what pg_stat_activity shows, where the URL says nothing else.
        any_encoding: names are neither read nor written, so that an UnsuitableDatabaseError is none.

    Raises:
        psycopg.OperationalError: PostgreSQL is unreachable, or the database is an UnsuitableDatabaseError.

    """
    connection = psycopg.connect(conninfo(database_url, application_name), autocommit=True)
    try:
        if not any_encoding:
            check_encoding(connection)
        prepare_session(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def check_encoding(connection: psycopg.Connection[Any]) -> None:
    """Raise UnsuitableDatabaseError where names cannot be kept. PostgreSQL said it at the start: nothing is asked."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != _ENCODING:
        raise UnsuitableDatabaseError(str(encoding))


def prepare_session(connection: psycopg.Connection[Any], *, lock_seconds: float = LOCK_SECONDS) -> None:
    """State the settings for the session; behind a pooler, which would hand them on to strangers, state none.

    There each transaction states them itself (`transaction`, `own_transaction`), and nothing is prepared: a statement
    that was prepared on one of the pooler's connections is unknown on the next.

    Args:
        connection: that was opened just now, in autocommit mode.
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
    """Let each statement be planned with the index that serves it, whatever the statistics say.

    psycopg prepares what it executes often, and PostgreSQL keeps the plan. One that was made for an empty outbox would
    read all of it at each execution, until an ANALYZE, when a hundred thousand messages come at once. For relay and
    worker alone: what they execute has its index (docs/decisions/0017).
    """
    if not states_settings(connection):
        connection.execute("SET enable_seqscan = off")


def _settings_of(server_version: int) -> dict[str, str]:
    newer = [settings for major, settings in _SETTINGS_SINCE.items() if server_version >= major * 10_000]
    return dict(ChainMap(*newer, _SETTINGS))


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a pooler stands in between: then the process that answers is not the one that we were told of."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row != (connection.info.backend_pid,)


def states_settings(connection: psycopg.Connection[Any]) -> bool:
    """Return whether each transaction on this connection has to state the settings, since a pooler stands in between.

    Asks nothing: `prepare_session` has left a mark.
    """
    return connection.prepare_threshold is None


def own_transaction(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make a function whose statement is a transaction by itself state the settings behind a pooler too.

    There a transaction is opened around the call, unless the caller has one open. On a direct connection, whose session
    has the settings, nothing is added. The function's first argument is the connection.
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
    connection: psycopg.Connection[Any], *, lock_seconds: float = LOCK_SECONDS, is_deferred: bool = False
) -> Iterator[None]:
    """Run a transaction that PostgreSQL itself ends if this process freezes in the middle of it.

    Args:
        connection: in autocommit mode, with no transaction open.
        lock_seconds: the longest wait for each lock.
        is_deferred: the first statement opens it, in one round trip with `opening`.

    Raises:
        psycopg.Error: it was rolled back; or, when the answer to COMMIT was lost, nobody knows.

    """
    try:
        if not is_deferred:
            connection.execute(opening(connection, lock_seconds))
        yield
    except BaseException:
        # Any other status means that the connection is broken or in the middle of a statement: of no use any more.
        if connection.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            connection.execute("ROLLBACK")
        raise
    commit(connection)


def opening(connection: psycopg.Connection[Any], lock_seconds: float) -> bytes:
    """Return the statements that begin a transaction, for one round trip."""
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


def commit(connection: psycopg.Connection[Any]) -> None:
    """Commit. A transaction that has failed is answered with a quiet ROLLBACK; here that is an error."""
    if connection.execute("COMMIT").statusmessage != "COMMIT":
        raise psycopg.errors.InFailedSqlTransaction("the transaction had failed and was rolled back")
