"""`python -m outbox_relay prune`: delete old finished messages now."""

import click

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.options import json_option
from outbox_relay.commands.output import print_json
from outbox_relay.loop.maintenance.pruner import PRUNED_AT_ONCE, Pruner


@click.command()
@click.option(
    "--older-than-days",
    type=click.FloatRange(0, 36_500),
    required=True,
    help="Delete finished messages older than this. Relays do the same with OUTBOX_KEEP_DONE_DAYS.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def prune(older_than_days: float, *, yes: bool, as_json: bool) -> None:
    """Delete finished messages by age, in small steps. Unfinished messages and dead letters are never deleted."""
    if not yes:
        click.confirm(f"delete finished messages older than {older_than_days:g} days?", abort=True, err=True)
    pruner = Pruner(older_than_days)
    with operator_database() as connection:
        total = pruned = pruner.step(connection)
        while pruned == PRUNED_AT_ONCE:
            pruned = pruner.step(connection)
            total += pruned
    if as_json:
        print_json({"pruned": total})
    else:
        click.echo(f"{total} finished messages are deleted")
