"""How alembic reaches the database: one migration in one transaction, and no lock that others notice."""

import time
from typing import Final

import psycopg
from alembic import context
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from shared.database import conninfo
from shared.settings import read_database_url

LOCK_MILLISECONDS: Final = 500
"""How long a migration waits for a lock. Everybody who comes after it for the same table waits behind it."""

STATEMENT_MILLISECONDS: Final = 1000
"""How long one statement may hold what it locked. A migration that needs longer says so itself, and locks nothing."""

_TRIES: Final = 60
_PAUSE_SECONDS: Final = 1.0
_SCHEMA_LOCK: Final = 7382945610291
"""schema.sql takes the same: one change of the schema at a time."""


def run() -> None:
    """Bring the database to the revision that was asked for; a lock that is not to be had is tried for again."""
    url = read_database_url()
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(conninfo(url, "outbox-migrations")),
        poolclass=NullPool,
    )
    for left in reversed(range(_TRIES)):
        try:
            with engine.connect() as connection:
                _migrate(connection)
        except OperationalError as exc:
            if not isinstance(exc.orig, psycopg.errors.LockNotAvailable | psycopg.errors.QueryCanceled) or not left:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _migrate(connection: Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_SCHEMA_LOCK})")
    connection.exec_driver_sql(f"SET lock_timeout = {LOCK_MILLISECONDS}")
    connection.exec_driver_sql(f"SET statement_timeout = {STATEMENT_MILLISECONDS}")
    connection.commit()
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


run()
