"""`python -m outbox_relay list` and `show`: a list of messages, and everything about one."""

from collections.abc import Mapping
from typing import Any

import click

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.exit_codes import fail
from outbox_relay.commands.options import MESSAGE_ID, json_option
from outbox_relay.commands.output import print_json, stdout_console, table
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.outbox.columns import FINISHED_STATUSES, LIVE_STATUSES
from shared.outbox.messages import QUEUES
from shared.outbox.operations import history

_MOMENTS = ("created_at", "due_at", "published_at", "claimed_at", "lease_until", "finished_at")
_FACTS = (
    "task",
    "queue",
    "status",
    "attempts",
    "max_retries",
    "generation",
    *_MOMENTS,
    "last_error",
    "traceparent",
    "uid",
    "destination",
    "dedup_key",
)


@click.command(name="list")
@click.option(
    "--status",
    "statuses",
    type=click.Choice([*LIVE_STATUSES, *FINISHED_STATUSES]),
    multiple=True,
    help="Only messages with this status; may be repeated. Default: all.",
)
@click.option("--queue", type=click.Choice(QUEUES), help="Only messages of this queue.")
@click.option("--task", help="Only messages of this task.")
@click.option("--destination", help="Only messages for this destination.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="Largest number of messages to show.",
)
@json_option
def list_(
    statuses: tuple[str, ...],
    queue: str | None,
    task: str | None,
    destination: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """List messages, the newest first."""
    wanted = statuses or (*LIVE_STATUSES, *FINISHED_STATUSES)
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        found = history.list_messages(
            connection, limit, statuses=wanted, queue=queue, task=task, destination=destination
        )
    if as_json:
        print_json(found)
        return
    columns = (
        "id",
        "task",
        "queue",
        "destination",
        "status",
        "attempts",
        "created (UTC)",
        "due (UTC)",
        "finished (UTC)",
        "reason",
    )
    rows = [
        (
            each.id,
            each.task,
            each.queue,
            each.destination,
            each.status,
            each.attempts,
            each.created_at,
            each.due_at,
            each.finished_at,
            each.last_error,
        )
        for each in found
    ]
    stdout_console().print(table(columns, rows, numbers=("id", "attempts")))


@click.command()
@click.argument("message_id", metavar="ID", type=MESSAGE_ID)
@json_option
def show(message_id: int, *, as_json: bool) -> None:
    """Show one message, with its times and failed attempts."""
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        message = history.read_message(connection, message_id)
    if message is None:
        fail(f"message {message_id}: there is no such message")
    if as_json:
        print_json(message)
        return
    stdout_console().print(table(("message", str(message_id)), [(name, message[name]) for name in _FACTS]))
    if message["failures"]:
        stdout_console().print(table(("failed (UTC)", "attempt", "reason"), map(_failure, message["failures"])))


def _failure(entry: Mapping[str, Any]) -> tuple[object, ...]:
    copy = " [a copy may have been accepted]" if entry.get("maybe_accepted") else ""
    return entry.get("at"), entry.get("attempt"), f"{entry.get('reason')}{copy}"
