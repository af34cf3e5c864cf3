"""`python -m outbox_relay dead`, `retry` and `discard`: list and retry dead letters, and discard messages."""

from collections.abc import Iterator
from typing import NoReturn

import click
import psycopg

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.exit_codes import fail
from outbox_relay.commands.options import GROUP_ID, MESSAGE_ID, json_option
from outbox_relay.commands.output import age, print_json, progress, stdout_console, table
from shared.database.connections import DbConnection, keep_plans
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.outbox.operations import dead_letters
from shared.outbox.operations.failure_groups import FailureGroups, list_groups


@click.command()
@click.option("--groups", is_flag=True, help="Show how many there are of each task and reason, instead of each one.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="Largest number of dead letters or groups to show.",
)
@json_option
def dead(limit: int, *, groups: bool, as_json: bool) -> None:
    """List the dead letters, with their reasons.

    With --groups, dead letters of one task whose reasons differ only in numbers, names and quoted values are one line.
    """
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        count = dead_letters.count_dead(connection)
        found = list_groups(connection, limit) if groups else None
        shown = [] if groups else dead_letters.list_dead(connection, limit)
    if found is not None:
        _print_groups(found, count, as_json=as_json)
    elif as_json:
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
        click.echo("dead --groups shows how many there are of each task and reason")


@click.command()
@click.argument("message_id", metavar="[ID]", type=MESSAGE_ID, required=False)
@click.option("--all", "all_of_them", is_flag=True, help="Retry every dead letter.")
@click.option("--group", type=GROUP_ID, help="Retry the dead letters of a group, as `dead --groups` names it.")
@json_option
def retry(message_id: int | None, group: int | None, *, all_of_them: bool, as_json: bool) -> None:
    """Make dead letters pending again, with all their attempts.

    A mail that the mail server may have accepted before may arrive twice.

    Many are retried in steps of 1,000. Ctrl-C stops it, and what was retried stays retried: run it again for the rest.
    """
    if [message_id is not None, all_of_them, group is not None].count(True) != 1:
        raise click.UsageError("give one ID, or --group ID, or --all")
    with operator_database() as connection:
        if message_id is None:
            selection = dead_letters.select_dead(connection, group)
            number = _count(connection, selection)
            retried = _carry_out(dead_letters.retry_selected(connection, selection), number, "pending again")
            done = f"{retried} dead letters are pending again"
            if retried < number:
                done += f"; {number - retried} are not: their payload is too large, or someone else changed them"
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
@click.argument("message_id", metavar="[ID]", type=MESSAGE_ID, required=False)
@click.option("--group", type=GROUP_ID, help="Discard the dead letters of a group, as `dead --groups` names it.")
@click.option("--reason", required=True, help="Why it is given up; the reason is kept with the message.")
@json_option
def discard(message_id: int | None, group: int | None, reason: str, *, as_json: bool) -> None:
    """Give up a dead or pending message, or all dead letters of a group. They stay in history, with the reason.

    Those of a group are discarded in steps of 1,000. Ctrl-C stops it, and what was discarded stays discarded: run it
    again for the rest.
    """
    if (message_id is None) == (group is None):
        raise click.UsageError("give one ID, or --group ID")
    if not reason.strip() or not reason.isprintable():
        raise click.BadParameter("write a few words on one line", param_hint="--reason")
    with operator_database() as connection:
        if message_id is None:
            selection = dead_letters.select_dead(connection, group)
            steps = dead_letters.discard_selected(connection, selection, reason.strip())
            discarded = _carry_out(steps, _count(connection, selection), "discarded")
        elif not dead_letters.discard(connection, message_id, reason.strip()):
            _fail_with_status(connection, message_id, "only a dead or pending message can be discarded")
    if message_id is not None:
        discarded = message_id
    if as_json:
        print_json({"discarded": discarded})
    elif message_id is None:
        click.echo(f"{discarded} dead letters are discarded")
    else:
        click.echo(f"message {message_id} is discarded")


def _count(connection: DbConnection, selection: dead_letters.Selection) -> int:
    """Return how many there are. A group without one ends the process."""
    keep_plans(connection)
    number = dead_letters.count_selected(connection, selection)
    if not number and selection.group is not None:
        fail("this group has no dead letters: `dead --groups` lists the groups that have some")
    return number


def _carry_out(steps: Iterator[int], number: int, state: str) -> int:
    """Run all steps, with a progress bar on a terminal, and return how many messages they changed."""
    changed = 0
    stopped = "stopped: {changed} of {number} dead letters are {state}; run the command again for the rest"
    try:
        with progress(number) as advance:
            for step in steps:
                changed += step
                advance(step)
    except KeyboardInterrupt:
        fail(stopped.format(changed=changed, number=number, state=state))
    except psycopg.Error:
        click.echo(stopped.format(changed=changed, number=number, state=state), err=True)
        raise
    return changed


def _print_groups(groups: FailureGroups, count: dead_letters.DeadCount, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "dead_letters": count.number,
                "are_all": count.is_all,
                "groups": groups.shown,
                "other_groups": groups.others,
                "are_all_groups": groups.are_all,
            }
        )
        return
    if not groups.shown:
        click.echo("no dead letters")
        return
    columns = ("group", "messages", "first\nseen", "last\nseen", "task: reason")
    rows = [
        (
            group.id,
            group.messages if group.are_all else f"over {group.messages}",
            age(group.first_seen),
            age(group.last_seen),
            f"{group.task}: {group.reason}",
        )
        for group in groups.shown
    ]
    stdout_console().print(table(columns, rows, numbers=columns[1:4]))
    if groups.others or not groups.are_all:
        click.echo(f"and {'more than ' if not groups.are_all else ''}{groups.others} other groups")
    click.echo(f"{count} dead letters; retry --group ID, or discard --group ID --reason TEXT")


def _reason(letter: dead_letters.DeadLetter) -> str:
    return letter.reason + (" [a copy may have been accepted]" if letter.maybe_accepted else "")


def _fail_with_status(connection: DbConnection, message_id: int, rule: str) -> NoReturn:
    status = dead_letters.status_of(connection, message_id)
    fail(f"message {message_id}: {'there is no such message' if status is None else f'it is {status}: {rule}'}")
