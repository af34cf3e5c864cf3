"""What every command shares: its connection, its exit codes, and its words for what is unreachable."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

import click
import psycopg

from shared.database.connections import DbConnection, connect
from shared.database.read_transaction import TAKES_TOO_LONG
from shared.errors import SettingsError
from shared.outage_causes import postgresql_cause
from shared.outbox.columns import LARGEST_ID
from shared.settings.postgresql_url import read_database_url

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
MESSAGE_ID: Final = click.IntRange(1, LARGEST_ID)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Give a command its --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def fail(message: str) -> NoReturn:
    """Say why nothing was done, and exit with EXIT_FAILED."""
    click.echo(message, err=True)
    sys.exit(EXIT_FAILED)


@contextmanager
def operator_database() -> Iterator[DbConnection]:
    """Open the database of DATABASE_URL; what is wrong with it ends the process with the documented exit code."""
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
