"""Find an endpoint by the name that an operator gave."""

import re

import click

from outbox_relay.commands.exit_codes import fail
from shared.database.connections import DbConnection
from shared.webhooks import endpoints
from shared.webhooks.endpoints import Endpoint


def _check_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if not re.fullmatch(endpoints.NAME_PATTERN, name, re.ASCII):
        raise click.BadParameter("at most 64 characters of a-z 0-9 _ . -, beginning with a letter or a digit")
    return name


name_argument = click.argument("name", callback=_check_name)


def find(connection: DbConnection, name: str, *, also_removed: bool = False) -> Endpoint:
    """Return the endpoint with this name. Without one the process ends."""
    found = endpoints.list_endpoints(connection, name)
    if not found:
        fail(f"{name}: there is no such endpoint; `webhooks list` lists them")
    if found[0].removed_at is not None and not also_removed:
        fail(f"{name} is being removed: `webhooks remove {name}` finishes it")
    return found[0]
