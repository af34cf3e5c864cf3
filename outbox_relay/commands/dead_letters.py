"""`python -m outbox_relay dead`, `retry` and `discard`: list and retry dead letters, and discard messages."""

from typing import NoReturn

import click

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.exit_codes import fail
from outbox_relay.commands.options import MESSAGE_ID, json_option
from outbox_relay.commands.output import print_json, stdout_console, table
from shared.database.connections import DbConnection
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.outbox.operations import dead_letters


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="Largest number of dead letters to show.",
)
@json_option
def dead(limit: int, *, as_json: bool) -> None:
    """List the dead letters, with their reasons."""
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        shown = dead_letters.list_dead(connection, limit)
        count = dead_letters.count_dead(connection)
    if as_json:
        print_json({"dead_letters": count.number, "are_all": count.is_all, "shown": shown})
    elif not shown:
        click.echo("no dead letters")
    else:
        columns = ("id", "task", "queue", "attempts", "created (UTC)", "reason")
        rows = [
            (letter.id, letter.task, letter.queue, letter.attempts, letter.created_at, _reason(letter))
            for letter in shown
        ]
        stdout_console().print(table(columns, rows, numbers=("id", "attempts")))
        click.echo(f"{len(shown)} of {count} dead letters; retry ID, retry --all or discard ID --reason TEXT")


@click.command()
@click.argument("message_id", metavar="ID", type=MESSAGE_ID, required=False)
@click.option("--all", "all_of_them", is_flag=True, help="Retry every dead letter.")
@json_option
def retry(message_id: int | None, *, all_of_them: bool, as_json: bool) -> None:
    """Make a dead letter pending again, with all its attempts.

    If the mail server may have accepted it before, it may arrive twice.
    """
    if (message_id is None) != all_of_them:
        raise click.UsageError("give one ID, or --all")
    with operator_database() as connection:
        if message_id is None:
            retried = dead_letters.retry_all(connection)
            done = f"{retried} dead letters are pending again"
        elif dead_letters.retry(connection, message_id):
            retried = 1
            done = f"message {message_id} is pending again"
        elif dead_letters.is_too_large(connection, message_id):
            fail(f"message {message_id}: its payload is too large: discard it, and append a smaller one")
        else:
            _fail_with_status(connection, message_id, "only a dead letter can be retried")
    if as_json:
        print_json({"retried": retried})
    else:
        click.echo(done)


@click.command()
@click.argument("message_id", metavar="ID", type=MESSAGE_ID)
@click.option("--reason", required=True, help="Why it is given up; the reason is kept with the message.")
@json_option
def discard(message_id: int, reason: str, *, as_json: bool) -> None:
    """Give up a dead or pending message. It stays in history, with the reason."""
    if not reason.strip() or not reason.isprintable():
        raise click.BadParameter("write a few words on one line", param_hint="--reason")
    with operator_database() as connection:
        if not dead_letters.discard(connection, message_id, reason.strip()):
            _fail_with_status(connection, message_id, "only a dead or pending message can be discarded")
    if as_json:
        print_json({"discarded": message_id})
    else:
        click.echo(f"message {message_id} is discarded")


def _reason(letter: dead_letters.DeadLetter) -> str:
    return letter.reason + (" [a copy may have been accepted]" if letter.maybe_accepted else "")


def _fail_with_status(connection: DbConnection, message_id: int, rule: str) -> NoReturn:
    status = dead_letters.status_of(connection, message_id)
    fail(f"message {message_id}: {'there is no such message' if status is None else f'it is {status}: {rule}'}")
