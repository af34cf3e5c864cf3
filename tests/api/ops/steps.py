"""Steps of the tests of the console: forms, cookies and dead letters."""

import re
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.database.connections import connect
from tests.programs.api_service import ApiService
from tests.rows import add_message, message

TOKEN = "the token of these tests: 32 and more characters"  # noqa: S105 - the tests' own


def form_key(client: FlaskClient) -> str:
    found = re.search(r'name="form_key" value="([^"]+)"', client.get("/ops").text)
    assert found is not None
    return found[1]


def hidden_fields(client: FlaskClient) -> dict[str, str]:
    """Return the hidden values of the page's current forms."""
    return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]+)"', client.get("/ops").text))


def submit(client: FlaskClient, path: str, **fields: str) -> TestResponse:
    return client.post(path, data={**hidden_fields(client), **fields})


def dead(service: ApiService, **columns: Any) -> int:
    with connect(service.database_url, "test") as connection:
        return add_message(connection, **{"status": "dead", **columns})


def status_of(service: ApiService, message_id: int) -> tuple[str, str | None]:
    with connect(service.database_url, "test") as connection:
        row = message(connection, message_id)
    return row["status"], row["last_error"]


def cookie_of(client: FlaskClient) -> str:
    cookie = client.get_cookie("outbox_ops", path="/ops")
    assert cookie is not None
    return cookie.value


def with_cookie(service: ApiService, value: str) -> FlaskClient:
    client = service.client()
    client.set_cookie("outbox_ops", value, path="/ops")
    return client
