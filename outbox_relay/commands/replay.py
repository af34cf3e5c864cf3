"""`python -m outbox_relay replay`: append finished messages again, after a confirmation."""

from datetime import UTC, datetime
from typing import Final

import click

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.exit_codes import fail
from outbox_relay.commands.options import json_option
from outbox_relay.commands.output import print_json
from shared.database.connections import transaction
from shared.outbox.messages import NOTIFY_CHANNEL
from shared.outbox.operations import history

_MOMENT: Final = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])


@click.command()
@click.option("--task", required=True, help="Task of the messages, such as task:send_verify_email.")
@click.option("--since", type=_MOMENT, required=True, help="Only messages that finished at or after this time, in UTC.")
@click.option("--until", type=_MOMENT, help="Only messages that finished before this time, in UTC. Default: now.")
@click.option("--discarded", is_flag=True, help="Replay discarded messages instead of done ones.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=10_000,
    show_default=True,
    help="Fail if more messages would be appended.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def replay(
    task: str, since: datetime, until: datetime | None, limit: int, *, discarded: bool, yes: bool, as_json: bool
) -> None:
    """Append the finished messages of a task again.

    Each finished message of the time range gets a new copy. The old ones stay unchanged.

    Every recipient gets another mail.
    """
    end = datetime.now(UTC) if until is None else until.replace(tzinfo=UTC)
    statuses = ("discarded",) if discarded else ("done",)
    chosen = history.Range(task, since.replace(tzinfo=UTC), end, statuses)
    with operator_database() as connection:
        count = history.count_finished(connection, chosen, limit)
        if count > limit:
            fail(f"more than {limit} messages: narrow the time range, or raise --limit")
        if count and not yes:
            click.confirm(f"append {count} new messages for {task}?", abort=True, err=True)
        with transaction(connection):
            appended = history.replay(connection, chosen) if count else 0
            if appended != count:
                fail(f"{appended} messages instead of {count}, because more have finished: none is appended, try again")
        if appended:
            connection.execute(f"NOTIFY {NOTIFY_CHANNEL}")
    if as_json:
        print_json({"appended": appended})
    else:
        click.echo(f"{appended} messages are appended")
