"""The connection of a command to PostgreSQL, and the error of a command that cannot use it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import psycopg

from outbox_relay.commands.exit_codes import EXIT_SETTINGS, fail
from shared.database.connections import DbConnection, connect
from shared.database.errors import TAKES_TOO_LONG
from shared.errors import SettingsError
from shared.outage_causes import postgresql_cause
from shared.settings.postgresql_url import read_database_url


@contextmanager
def operator_database() -> Iterator[DbConnection]:
    """Connect to DATABASE_URL. An error ends the process with its exit code."""
    try:
        database_url = read_database_url()
    except SettingsError as exc:
        click.echo(exc, err=True)
        sys.exit(EXIT_SETTINGS)
    try:
        with connect(database_url, "outbox-operator") as connection:
            yield connection
    except psycopg.errors.UndefinedTable:
        fail("a table is missing: apply schema.sql")
    except TAKES_TOO_LONG:
        fail("PostgreSQL took too long to answer: see OutboxUnreadable in docs/operations/runbook.md")
    except psycopg.Error as exc:
        fail(f"PostgreSQL cannot be used: {postgresql_cause(exc, database_url)}")
