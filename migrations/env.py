"""alembic's environment: each migration runs in a transaction of its own, and no lock delays others for long."""

import re
import sys
import time
from typing import Final

import psycopg
from alembic import context
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from shared.database.connections import DbConnection, connect
from shared.settings.postgresql_url import read_database_url

LOCK_MILLISECONDS: Final = 500
"""How long a migration waits for a lock. All later statements on the same table wait behind it."""

STATEMENT_MILLISECONDS: Final = 1000
"""How long one statement may hold its locks. A migration that needs longer sets the limit itself, and locks nothing."""

_PAUSE_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.2
"""The pause between two checks whether another process has finished its migrations."""

_SLOW_TRIES: Final = 60
"""How often a statement is retried that took too long: even with every lock it may take too long each time."""
_WAITS_BETWEEN_REPORTS: Final = 30
_SCHEMA_LOCK: Final = 7382945610291
"""schema.sql takes the same lock, so that only one process changes the schema at a time."""

_FROM_0023: Final = 'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f migrations/from_0023.sql'
_FORMER_RULES: Final = """
    SELECT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = to_regclass('outbox') AND conname = 'outbox_rules'
    )
"""
_HOLDERS: Final = """
    SELECT CASE WHEN held.pid IS NULL THEN 'a prepared transaction (see pg_prepared_xacts)'
           ELSE format('process %%s (%%s, %%s)', held.pid,
                       coalesce(nullif(application_name, ''), 'a client without a name'),
                       coalesce(state, 'its state is hidden'))
           END,
           extract(epoch FROM clock_timestamp() - xact_start)::integer
    FROM pg_locks AS held LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
    WHERE granted AND held.pid IS DISTINCT FROM pg_backend_pid()
      AND (
        database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND relation IN (SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
                         WHERE nspname = current_schema())
        -- CREATE INDEX CONCURRENTLY waits for transactions that hold none of our tables.
        OR locktype = 'virtualxid' AND datname = current_database()
      )
    GROUP BY virtualtransaction, held.pid, application_name, state, xact_start
    ORDER BY bool_or(relation IS NOT NULL) DESC, xact_start NULLS FIRST LIMIT 3
"""


def run() -> None:
    """Bring the database to the requested revision. A lock that cannot be acquired is tried again."""
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
                if waits % _WAITS_BETWEEN_REPORTS == 0:
                    _report_wait(engine)
                waits += 1
            elif isinstance(exc.orig, psycopg.errors.QueryCanceled) and slow < _SLOW_TRIES:
                slow += 1
            else:
                raise
        # The processes of a new version wait for the migration: if it gave up, they would never start.
        time.sleep(_PAUSE_SECONDS)


def _connect(url: str) -> DbConnection:
    """Open a connection that begins transactions itself, with settings that do not depend on the database's."""
    connection = connect(url, "outbox-migrations")
    connection.execute("SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0")
    connection.autocommit = False
    return connection


def _report_wait(engine: Engine) -> None:
    """Write to standard error which other transactions are open, first those that have locked one of our tables.

    Every role may read who holds which lock, but PostgreSQL hides the state and the age of other roles' sessions.
    """
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(_HOLDERS).fetchall()
    open_transactions = "; ".join(
        f"{who}, its age is hidden" if age is None else f"{who} for {age} s" for who, age in rows
    )
    sys.stderr.write(
        "A table is locked by another transaction. The migration tries again each second until it is free. "
        f"Open transactions: {open_transactions or 'none any more'}. To end one: SELECT pg_terminate_backend(process)\n"
    )
    sys.stderr.flush()


def _migrate(connection: Connection) -> None:
    # A wait in pg_advisory_lock would keep its snapshot, for which CREATE INDEX CONCURRENTLY would wait in turn.
    while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_SCHEMA_LOCK})").scalar_one():
        connection.commit()
        time.sleep(_TURN_SECONDS)
    connection.exec_driver_sql(f"SET lock_timeout = {LOCK_MILLISECONDS}")
    connection.exec_driver_sql(f"SET statement_timeout = {STATEMENT_MILLISECONDS}")
    connection.commit()
    _refuse_former_revision(connection)
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def _refuse_former_revision(connection: Connection) -> None:
    """Raise CommandError with the command to run, for a database of a revision that became part of 0001_schema.

    Those were 0001 to 0023. All later revisions are named like their files.
    """
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None and connection.exec_driver_sql(_FORMER_RULES).scalar_one():
        revision = "0023"  # schema.sql created it
    connection.commit()
    if revision == "0023":
        raise CommandError(
            f"The database has the schema of the former revision 0023. Bring it to 0001_schema: {_FROM_0023}"
        )
    if revision is not None and re.fullmatch(r"\d{4}", revision):
        raise CommandError(
            f"The database has the schema of the former revision {revision}. Bring it to 0023 with the last commit "
            f"that has revision 0023 (docs/operations/migrations.md says how), then to 0001_schema: {_FROM_0023}"
        )


run()
