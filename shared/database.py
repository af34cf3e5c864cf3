"""Connections to PostgreSQL: how the long-lived processes hold them, and what a frozen process may hold up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

DbConnection = psycopg.Connection[tuple[Any, ...]]

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

# One round trip. The limits are set inside each transaction because a setting of the session does not survive
# PgBouncer's transaction pooling.
_BEGIN: Final = f"""
BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_SECONDS}s';
SET LOCAL lock_timeout = '%dms'
"""


def conninfo(database_url: str, application_name: str) -> str:
    """Give libpq's connection string: what the URL says, and our defaults for what it leaves open."""
    given = conninfo_to_dict(database_url)
    missing = {name: value for name, value in _DEFAULTS.items() if name not in given}
    missing.setdefault("application_name", given.get("application_name") or application_name)
    return make_conninfo(database_url, **missing)


def connect(database_url: str, application_name: str) -> DbConnection:
    """Open a connection in autocommit mode. Raises psycopg.OperationalError when PostgreSQL is unreachable."""
    connection = psycopg.connect(conninfo(database_url, application_name), autocommit=True)
    if is_pooled(connection):
        # A statement that was prepared on one of the pooler's connections is unknown on the next.
        connection.prepare_threshold = None
    else:
        # The plan of a prepared statement is kept. One that was made for an empty outbox would read all of it at each
        # execution, until an ANALYZE, when a hundred thousand messages come at once. What relay and worker execute has
        # its index.
        connection.execute("SET enable_seqscan = off")
    return connection


def is_pooled(connection: DbConnection) -> bool:
    """Tell whether a pooler stands in between: then the process that answers is not the one that we were told of."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row != (connection.info.backend_pid,)


@contextmanager
def transaction(connection: psycopg.Connection[Any], *, lock_seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Run a transaction that PostgreSQL itself ends if this process freezes in the middle of it.

    Args:
        connection: in autocommit mode, with no transaction open.
        lock_seconds: the longest wait for each lock.

    Raises:
        psycopg.Error: it was rolled back; or, when the answer to COMMIT was lost, nobody knows.

    """
    connection.execute((_BEGIN % (lock_seconds * 1000)).encode())
    try:
        yield
    except BaseException:
        # Any other status means that the connection is broken or in the middle of a statement: of no use any more.
        if connection.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            connection.execute("ROLLBACK")
        raise
    commit(connection)


def commit(connection: psycopg.Connection[Any]) -> None:
    """Commit. A transaction that has failed is answered with a quiet ROLLBACK; here that is an error."""
    if connection.execute("COMMIT").statusmessage != "COMMIT":
        raise psycopg.errors.InFailedSqlTransaction("the transaction had failed and was rolled back")
