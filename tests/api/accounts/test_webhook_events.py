"""The webhook messages of a signup and of a verification: one for each endpoint that gets the event."""

import json
from datetime import datetime
from typing import Any

from shared.webhooks.events import USER_SIGNED_UP, USER_VERIFIED
from tests.programs.api_service import ALICE, ApiService


def add_endpoint(api: ApiService, name: str, *events: str, fan_out_until: str | None = None) -> int:
    [row] = api.sql(
        "INSERT INTO webhook_endpoints (name, url, events, fan_out_until)"
        " VALUES (%(name)s, 'https://example.com/', %(events)s, %(until)s) RETURNING id",
        {"name": name, "events": list(events), "until": fan_out_until},
    )
    return int(row["id"])


def webhooks(api: ApiService) -> list[dict[str, Any]]:
    return api.sql(
        "SELECT destination, queue, status, dedup_key, payload FROM outbox"
        " WHERE task = 'task:deliver_webhook' ORDER BY destination"
    )


def test_a_signup_writes_one_message_for_each_endpoint_that_gets_the_event(api: ApiService) -> None:
    first, second = (add_endpoint(api, name, USER_SIGNED_UP, USER_VERIFIED) for name in ("one", "two"))
    add_endpoint(api, "verified-alone", USER_VERIFIED)
    add_endpoint(api, "ended", USER_SIGNED_UP, fan_out_until="2020-01-01")
    later = add_endpoint(api, "ends-later", USER_SIGNED_UP, fan_out_until="2100-01-01")

    assert api.sign_up().status_code == 201

    found = webhooks(api)
    assert [each["destination"] for each in found] == [f"webhook:{id_}" for id_ in (first, second, later)]
    assert [each["payload"]["endpoint_id"] for each in found] == [first, second, later]
    assert {(each["queue"], each["status"], each["dedup_key"]) for each in found} == {("default", "pending", None)}


def test_the_event_is_frozen_in_the_payload(api: ApiService) -> None:
    add_endpoint(api, "one", USER_SIGNED_UP)
    name = 'Zoë "Z" O\'Neill \\\\'

    api.client().post("/v1/users", json={**ALICE, "full_name": name})

    [message] = webhooks(api)
    [user] = api.sql("SELECT created_at FROM users")
    event = json.loads(message["payload"]["body"])
    assert [*event] == ["type", "timestamp", "data"]
    assert event["type"] == "user.signed_up"
    assert {**event["data"], "created_at": None} == {
        "username": "alice",
        "email": "alice@example.com",
        "full_name": name,
        "created_at": None,
    }
    assert event["timestamp"].endswith("Z")
    assert event["timestamp"] == event["data"]["created_at"]
    assert datetime.fromisoformat(event["timestamp"]) == user["created_at"]


def test_a_verification_writes_its_event_once(api: ApiService) -> None:
    api.sign_up()
    endpoint = add_endpoint(api, "one", USER_SIGNED_UP, USER_VERIFIED)
    link = api.link(api.record())

    for _ in range(2):
        assert api.client().post(link).status_code == 200

    [message] = webhooks(api)
    event = json.loads(message["payload"]["body"])
    assert message["destination"] == f"webhook:{endpoint}"
    assert event["type"] == "user.verified"
    assert event["data"]["username"] == "alice"
    assert event["timestamp"] > event["data"]["created_at"]


def test_a_signup_that_is_refused_writes_none(api: ApiService) -> None:
    api.sign_up()
    add_endpoint(api, "one", USER_SIGNED_UP)

    assert api.client().post("/v1/users", json={**ALICE, "password": "another good one"}).status_code == 409
    assert webhooks(api) == []


def test_without_an_endpoint_nothing_is_written(api: ApiService) -> None:
    api.sign_up()

    assert webhooks(api) == []
