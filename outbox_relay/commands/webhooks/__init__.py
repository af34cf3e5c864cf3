"""`python -m outbox_relay webhooks`: manage the endpoints that get events as webhooks."""

import click

from outbox_relay.commands.webhooks.management import add, disable, enable, remove, rotate
from outbox_relay.commands.webhooks.showing import list_, show
from outbox_relay.commands.webhooks.testing import test


@click.group()
def webhooks() -> None:
    """Manage the endpoints that get events as webhooks.

    `add` and `rotate` print the secret that signs them, once: it cannot be shown again. URLs may contain tokens: only
    their scheme and host are ever shown.
    """


for _command in (add, list_, show, test, rotate, disable, enable, remove):
    webhooks.add_command(_command)
