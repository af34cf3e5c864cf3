"""Endpoints with a known secret, and webhooks to them that are processed by one worker."""

import base64
from typing import Any

from consumer.model.results import Disposition
from consumer.tasks.deliver_webhook import TASK
from embedded.programs.ports import LOOPBACK
from shared.settings.parsing import parse_networks
from tests.consumer.stages.processing.world import World
from tests.rows import add_message

SECRET, FORMER = (f"whsec_{base64.b64encode(letter * 32).decode()}" for letter in (b"a", b"b"))
BODY = '{"type": "user.signed_up", "data": {"username": "alice"}}'
NETWORKS = parse_networks("127.0.0.0/8", "")


def add_endpoint(world: World, port: int, *secrets: str) -> int:
    [row] = world.rows(
        "INSERT INTO webhook_endpoints (name, url, events) VALUES ('shop', %s, ARRAY['user.signed_up']) RETURNING id",
        [f"http://{LOOPBACK}:{port}/hooks/a-token"],
    )
    for secret in secrets or (SECRET,):
        world.connection.execute(
            "INSERT INTO webhook_secrets (endpoint_id, secret) VALUES (%s, %s)", [row["id"], secret]
        )
    return int(row["id"])


def add_webhook(world: World, endpoint_id: object, **columns: Any) -> int:
    payload = {"endpoint_id": endpoint_id, "body": BODY}
    values = {"destination": f"webhook:{endpoint_id}", **columns}
    return add_message(world.connection, TASK.name, payload, **values)


def process(world: World, message_id: int, **settings: Any) -> Disposition:
    return world.process(message_id, **{"webhook_networks": NETWORKS, **settings})


def destination(world: World, endpoint_id: int) -> dict[str, Any]:
    rows = world.rows("SELECT * FROM outbox_destinations WHERE name = %s", [f"webhook:{endpoint_id}"])
    return rows[0] if rows else {"opened_at": None, "paused_at": None, "pause_reason": None}
