"""`python -m outbox_relay list | show`: messages, and the whole story of one."""

from collections.abc import Mapping
from typing import Any

import click

from outbox_relay.commands.output import print_json, screen, table
from outbox_relay.commands.session import MESSAGE_ID, fail, json_option, operator_database
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.outbox import history
from shared.outbox.columns import FINISHED_STATUSES, LIVE_STATUSES
from shared.outbox.messages import QUEUES

_MOMENTS = ("created_at", "due_at", "published_at", "claimed_at", "lease_until", "finished_at")
_FACTS = (
    "task",
    "queue",
    "status",
    "attempt",
    "max_retries",
    "generation",
    *_MOMENTS,
    "last_error",
    "traceparent",
    "uid",
)


@click.command(name="list")
@click.option(
    "--state",
    "states",
    type=click.Choice([*LIVE_STATUSES, *FINISHED_STATUSES]),
    multiple=True,
    help="Only these; may be given several times. Default: all.",
)
@click.option("--queue", type=click.Choice(QUEUES), help="Only this queue.")
@click.option("--task", help="Only this task.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Messages shown.")
@json_option
def list_(states: tuple[str, ...], queue: str | None, task: str | None, limit: int, *, as_json: bool) -> None:
    """List messages, the newest first."""
    wanted = states or (*LIVE_STATUSES, *FINISHED_STATUSES)
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        found = history.list_messages(connection, limit, states=wanted, queue=queue, task=task)
    if as_json:
        print_json(found)
        return
    columns = ("id", "task", "queue", "state", "attempts", "created (UTC)", "due (UTC)", "finished (UTC)", "reason")
    rows = [
        (
            each.id,
            each.task,
            each.queue,
            each.status,
            each.attempt,
            each.created_at,
            each.due_at,
            each.finished_at,
            each.last_error,
        )
        for each in found
    ]
    screen().print(table(columns, rows, numbers=("id", "attempts")))


@click.command()
@click.argument("message_id", metavar="ID", type=MESSAGE_ID)
@json_option
def show(message_id: int, *, as_json: bool) -> None:
    """Tell one message's story: its times, and each failed attempt with its reason."""
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        message = history.read_message(connection, message_id)
    if message is None:
        fail(f"message {message_id}: there is no such message")
    if as_json:
        print_json(message)
        return
    screen().print(table(("message", str(message_id)), [(name, message[name]) for name in _FACTS]))
    if message["failures"]:
        screen().print(table(("failed (UTC)", "attempt", "reason"), map(_failure, message["failures"])))


def _failure(entry: Mapping[str, Any]) -> tuple[object, ...]:
    copy = " [a copy may have been accepted]" if entry.get("maybe_accepted") else ""
    return entry.get("at"), entry.get("attempt"), f"{entry.get('reason')}{copy}"
