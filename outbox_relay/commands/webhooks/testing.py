"""`webhooks test`: send a test event through relay and worker, and wait for the result."""

import json
import time
from datetime import UTC, datetime
from typing import Final

import click

from outbox_relay.commands.database import operator_database
from outbox_relay.commands.exit_codes import fail
from outbox_relay.commands.options import json_option
from outbox_relay.commands.output import print_json, visible
from outbox_relay.commands.webhooks.display import origin
from outbox_relay.commands.webhooks.finding import find, name_argument
from shared.database.connections import DbConnection, transaction
from shared.outbox.messages import NOTIFY_CHANNEL
from shared.outbox.operations import dead_letters, history
from shared.webhooks import endpoints
from shared.webhooks.events import TEST_EVENT

_POLL_SECONDS: Final = 0.1


@click.command()
@name_argument
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0, 600),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the result.",
)
@json_option
def test(name: str, seconds: float, *, as_json: bool) -> None:
    """Send the event webhook.test to an endpoint, through relay and worker, and wait for the result.

    Exit code 1 unless it was accepted. A test that was not accepted is discarded.
    """
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    body = json.dumps({"type": TEST_EVENT, "timestamp": now, "data": {"endpoint": name}})
    with operator_database() as connection:
        endpoint = find(connection, name)
        if endpoint.is_disabled:
            fail(f"{name} is disabled: `webhooks enable {name}` enables it")
        began = time.monotonic()
        message_id = endpoints.append_test(connection, endpoint.id, body)
        connection.execute(f"NOTIFY {NOTIFY_CHANNEL}")
        result = _result(connection, message_id, began + seconds)
        took = time.monotonic() - began
        if result is not None:
            dead_letters.discard(connection, message_id, "the test of an endpoint failed")
            fail(f"message {message_id}: not accepted: {result}")
    if as_json:
        print_json({"message_id": message_id, "accepted": True, "seconds": round(took, 3)})
    else:
        click.echo(f"{origin(endpoint)} accepted {TEST_EVENT} after {visible(took)} s (message {message_id})")


def _result(connection: DbConnection, message_id: int, until: float) -> str | None:
    """Wait for the end of an attempt; return None if it was accepted, else the reason."""
    while True:
        with transaction(connection):
            message = history.read_message(connection, message_id) or {}
        if message.get("status") == "done":
            return None
        if message.get("status") == "discarded" or message.get("last_error"):
            return str(message["last_error"])
        if time.monotonic() >= until:
            return f"it is {message.get('status', 'gone')} after the time to wait; do relay and workers run?"
        time.sleep(_POLL_SECONDS)
