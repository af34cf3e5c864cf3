"""`python -m outbox_relay dead | retry | discard`: the operator's way to dead letters."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
import psycopg

from outbox_relay import letters
from outbox_relay.statements import DbConnection
from shared.database import connect
from shared.errors import SettingsError
from shared.settings import read_database_url

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
_MESSAGE_ID = click.IntRange(1, 2**63 - 1)


@click.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Letters shown.")
def dead(limit: int) -> None:
    """List the dead letters: what could not be delivered, and why."""
    with _database() as connection:
        shown = letters.list_dead(connection, limit)
        count = letters.count_dead(connection)
    if not shown:
        click.echo("no dead letters")
        return
    click.echo(f"{'id':>10}  {'task':<26} {'queue':<9} {'attempts':>8}  {'created (UTC)':<19}  reason")
    for letter in shown:
        created = letter.created_at.strftime("%Y-%m-%d %H:%M:%S")
        reason = letter.reason + (" [a copy may have been accepted]" if letter.maybe_accepted else "")
        click.echo(f"{letter.id:>10}  {letter.task:<26} {letter.queue:<9} {letter.attempt:>8}  {created}  {reason}")
    click.echo(f"{len(shown)} of {count} dead letters; retry ID, retry --all or discard ID --reason TEXT")


@click.command()
@click.argument("message_id", metavar="ID", type=_MESSAGE_ID, required=False)
@click.option("--all", "all_of_them", is_flag=True, help="Every dead letter.")
def retry(message_id: int | None, *, all_of_them: bool) -> None:
    """Send a dead letter again, with all its attempts. Where a copy may have been accepted it may arrive twice."""
    if (message_id is None) != all_of_them:
        raise click.UsageError("name one ID, or --all")
    with _database() as connection:
        if message_id is None:
            click.echo(f"{letters.retry_all(connection)} dead letters are pending again")
        elif letters.retry(connection, message_id):
            click.echo(f"message {message_id} is pending again")
        else:
            _refuse(connection, message_id, "only a dead letter can be retried")


@click.command()
@click.argument("message_id", metavar="ID", type=_MESSAGE_ID)
@click.option("--reason", required=True, help="Why it is given up; kept with the message.")
def discard(message_id: int, reason: str) -> None:
    """Give up a dead or pending message. It is kept as history, with the reason."""
    if not reason.strip() or not reason.isprintable():
        raise click.BadParameter("write a few words on one line", param_hint="--reason")
    with _database() as connection:
        if letters.discard(connection, message_id, reason.strip()):
            click.echo(f"message {message_id} is discarded")
        else:
            _refuse(connection, message_id, "only a dead or pending message can be discarded")


def _refuse(connection: DbConnection, message_id: int, rule: str) -> None:
    status = letters.status_of(connection, message_id)
    found = "there is no such message" if status is None else f"it is {status}: {rule}"
    click.echo(f"message {message_id}: {found}", err=True)
    sys.exit(EXIT_FAILED)


@contextmanager
def _database() -> Iterator[DbConnection]:
    try:
        database_url = read_database_url()
    except SettingsError as exc:
        click.echo(exc, err=True)
        sys.exit(EXIT_SETTINGS)
    try:
        with connect(database_url, "outbox-operator") as connection:
            yield connection
    except psycopg.Error as exc:
        click.echo(f"PostgreSQL cannot be used: {type(exc).__name__}", err=True)
        sys.exit(EXIT_FAILED)
