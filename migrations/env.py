"""How alembic reaches the database: one migration in one transaction, and no lock that others notice."""

import sys
import time
from typing import Final

import psycopg
from alembic import context
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from shared.database import DbConnection, connect
from shared.settings import read_database_url

LOCK_MILLISECONDS: Final = 500
"""How long a migration waits for a lock. Everybody who comes after it for the same table waits behind it."""

STATEMENT_MILLISECONDS: Final = 1000
"""How long one statement may hold what it locked. A migration that needs longer says so itself, and locks nothing."""

_PAUSE_SECONDS: Final = 1.0
_SLOW_TRIES: Final = 60
"""How often a statement is tried again that took too long: with every lock at hand it may do so each time."""
_WAITS_BETWEEN_REPORTS: Final = 30
_SCHEMA_LOCK: Final = 7382945610291
"""schema.sql takes the same: one change of the schema at a time."""


def run() -> None:
    """Bring the database to the revision that was asked for; a lock that is not to be had is tried for again."""
    url = read_database_url()
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connect(url),
        poolclass=NullPool,
    )
    waits = slow = 0
    while True:
        try:
            with engine.connect() as connection:
                return _migrate(connection)
        except OperationalError as exc:
            if isinstance(exc.orig, psycopg.errors.LockNotAvailable):
                waits += 1
            elif isinstance(exc.orig, psycopg.errors.QueryCanceled) and slow < _SLOW_TRIES:
                slow += 1
            else:
                raise
        # The processes of a new version wait for the migration: if it gave up, they would never start.
        if waits % _WAITS_BETWEEN_REPORTS == 1:
            with engine.connect() as connection:
                _report_wait(connection)
        time.sleep(_PAUSE_SECONDS)


def _connect(url: str) -> DbConnection:
    """Open a connection that begins its transactions by itself, with settings that do not depend on the database's."""
    connection = connect(url, "outbox-migrations")
    connection.execute("SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0")
    connection.autocommit = False
    return connection


def _report_wait(connection: Connection) -> None:
    """Say on standard error which transactions of others have been open for longest: one of them holds the lock."""
    rows = connection.exec_driver_sql("""
        SELECT pid, coalesce(nullif(application_name, ''), 'a client without a name'),
               coalesce(state, 'its state is hidden'),
               extract(epoch FROM clock_timestamp() - xact_start)::integer
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
        ORDER BY xact_start LIMIT 3
    """)
    open_transactions = "; ".join(f"process {pid} ({name}, {state}) for {age} s" for pid, name, state, age in rows)
    sys.stderr.write(
        "A table is locked by another transaction. The migration tries again each second until it is free. "
        f"Open transactions: {open_transactions or 'none any more'}. To end one: SELECT pg_terminate_backend(process)\n"
    )
    sys.stderr.flush()


def _migrate(connection: Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_SCHEMA_LOCK})")
    connection.exec_driver_sql(f"SET lock_timeout = {LOCK_MILLISECONDS}")
    connection.exec_driver_sql(f"SET statement_timeout = {STATEMENT_MILLISECONDS}")
    connection.commit()
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


run()
