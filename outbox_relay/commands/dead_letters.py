"""`python -m outbox_relay dead | retry | discard`: the operator's way to dead letters."""

from typing import NoReturn

import click

from outbox_relay.commands.output import print_json, screen, table
from outbox_relay.commands.session import MESSAGE_ID, fail, json_option, operator_database
from shared.database.connections import DbConnection
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.outbox import dead_letters


@click.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Letters shown.")
@json_option
def dead(limit: int, *, as_json: bool) -> None:
    """List the dead letters: what could not be delivered, and why."""
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
            (letter.id, letter.task, letter.queue, letter.attempt, letter.created_at, _reason(letter))
            for letter in shown
        ]
        screen().print(table(columns, rows, numbers=("id", "attempts")))
        click.echo(f"{len(shown)} of {count} dead letters; retry ID, retry --all or discard ID --reason TEXT")


@click.command()
@click.argument("message_id", metavar="ID", type=MESSAGE_ID, required=False)
@click.option("--all", "all_of_them", is_flag=True, help="Every dead letter.")
@json_option
def retry(message_id: int | None, *, all_of_them: bool, as_json: bool) -> None:
    """Send a dead letter again, with all its attempts. Where a copy may have been accepted it may arrive twice."""
    if (message_id is None) != all_of_them:
        raise click.UsageError("name one ID, or --all")
    with operator_database() as connection:
        if message_id is None:
            retried = dead_letters.retry_all(connection)
            told = f"{retried} dead letters are pending again"
        elif dead_letters.retry(connection, message_id):
            retried = 1
            told = f"message {message_id} is pending again"
        elif dead_letters.is_too_large(connection, message_id):
            fail(
                f"message {message_id}: its payload is larger than a message may send: discard it, append a smaller one"
            )
        else:
            _refuse(connection, message_id, "only a dead letter can be retried")
    if as_json:
        print_json({"retried": retried})
    else:
        click.echo(told)


@click.command()
@click.argument("message_id", metavar="ID", type=MESSAGE_ID)
@click.option("--reason", required=True, help="Why it is given up; kept with the message.")
@json_option
def discard(message_id: int, reason: str, *, as_json: bool) -> None:
    """Give up a dead or pending message. It is kept as history, with the reason."""
    if not reason.strip() or not reason.isprintable():
        raise click.BadParameter("write a few words on one line", param_hint="--reason")
    with operator_database() as connection:
        if not dead_letters.discard(connection, message_id, reason.strip()):
            _refuse(connection, message_id, "only a dead or pending message can be discarded")
    if as_json:
        print_json({"discarded": message_id})
    else:
        click.echo(f"message {message_id} is discarded")


def _reason(letter: dead_letters.DeadLetter) -> str:
    return letter.reason + (" [a copy may have been accepted]" if letter.maybe_accepted else "")


def _refuse(connection: DbConnection, message_id: int, rule: str) -> NoReturn:
    status = dead_letters.status_of(connection, message_id)
    fail(f"message {message_id}: {'there is no such message' if status is None else f'it is {status}: {rule}'}")
