"""A read-only transaction with time limits, for metrics, console and commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from shared.database.connections import commit, opening

STATEMENT_SECONDS: Final = 2.0
"""These statements take milliseconds. A scrape has a few of them and ten seconds."""

COMMAND_SECONDS: Final = 10.0
"""A person at a terminal waits longer than a scrape, such as for the latency of a day."""

# Sent together with BEGIN, and only for this transaction: behind PgBouncer the session is shared.
_LIMITS: Final = """;
SET TRANSACTION READ ONLY;
SET LOCAL statement_timeout = '%(milliseconds)dms';
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off
"""
# Each statement reads the start of an index in its order. After a sudden backlog PostgreSQL's statistics are outdated,
# and it would read and sort all messages of a status instead.


@contextmanager
def read_transaction(
    connection: psycopg.Connection[Any], statement_seconds: float = STATEMENT_SECONDS
) -> Iterator[None]:
    """Run a read-only transaction in which PostgreSQL cancels each statement after so many seconds.

    Args:
        connection: in autocommit mode, with no transaction open.
        statement_seconds: how long one statement may take, and wait for a lock.

    Raises:
        TAKES_TOO_LONG: a statement took longer.
        psycopg.Error: PostgreSQL cannot be used.

    """
    limits = _LIMITS % {"milliseconds": statement_seconds * 1000}
    connection.execute(opening(connection, statement_seconds) + limits.encode())
    try:
        yield
    except BaseException:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
            connection.execute("ROLLBACK")
        raise
    commit(connection)
