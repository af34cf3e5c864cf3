"""Groups of PostgreSQL's errors that are handled alike."""

from typing import Final

import psycopg

UNREACHABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    # The primary became a standby; the next connection finds the new primary.
    psycopg.errors.ReadOnlySqlTransaction,
)
"""PostgreSQL is unavailable, is shutting down, has ended our session, or is a standby. LOCKED and TAKES_TOO_LONG are
OperationalErrors too: code that treats them differently must catch them first."""

LOCKED: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
"""Another session holds a row lock for longer than we wait."""

TAKES_TOO_LONG: Final = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
"""PostgreSQL is available, and a statement took too long."""

SCHEMA_MISSING: Final = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedFunction,
)
"""The database lacks a part of the schema that this version needs."""
