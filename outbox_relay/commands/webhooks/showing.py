"""`webhooks list` and `webhooks show`."""

import click

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.options import json_option
from outbox_relay.commands.output import print_json, stdout_console, table
from outbox_relay.commands.webhooks import display
from outbox_relay.commands.webhooks.finding import find, name_argument
from shared.database.read_transaction import COMMAND_SECONDS, read_transaction
from shared.webhooks import endpoints


@click.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the endpoints, and what waits for them."""
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        found = endpoints.list_endpoints(connection)
    if as_json:
        print_json([display.as_json(each) for each in found])
    elif not found:
        click.echo("no endpoints; `webhooks add NAME URL` adds one")
    else:
        columns = ("name", "destination", "url", "events", "waiting", "state")
        rows = [
            (
                each.name,
                each.destination,
                display.origin(each),
                ", ".join(each.events),
                display.waiting(each),
                display.state(each),
            )
            for each in found
        ]
        stdout_console().print(table(columns, rows, numbers=("waiting",)))


@click.command()
@name_argument
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show one endpoint."""
    with operator_database() as connection, read_transaction(connection, COMMAND_SECONDS):
        endpoint = find(connection, name)
    if as_json:
        print_json(display.as_json(endpoint))
    else:
        stdout_console().print(table(("endpoint", name), [*display.as_json(endpoint).items()][1:]))
