"""A webhook from its message to the endpoint's answer, and what each answer makes of message and endpoint."""

from collections.abc import Iterator

import pytest
from standardwebhooks.webhooks import Webhook

from consumer.model.results import Disposition
from consumer.tasks.deliver_webhook import TASK, backoff
from consumer.webhooks.client import Answer, WebhookClient
from embedded.programs.ports import free_port
from outbox_relay.doctor.webhook_checks import check_webhooks
from shared.webhooks import endpoints
from tests.consumer.stages.processing.webhooks.events import (
    BODY,
    FORMER,
    SECRET,
    add_endpoint,
    add_webhook,
    destination,
    process,
)
from tests.consumer.stages.processing.world import Logs, World
from tests.plans import explaining
from tests.servers.scripted_endpoint import ScriptedEndpoint, answering


def test_an_event_arrives_signed_with_each_valid_secret(world: World) -> None:
    with ScriptedEndpoint(answering(204)) as server:
        endpoint = add_endpoint(world, server.port, FORMER, SECRET)
        world.connection.execute("UPDATE webhook_secrets SET ends_at = '2020-01-01' WHERE secret = %s", [FORMER])
        ids = [add_webhook(world, endpoint)]
        assert process(world, ids[0]) is Disposition.DELIVERED
        world.connection.execute("UPDATE webhook_secrets SET ends_at = '2100-01-01' WHERE secret = %s", [FORMER])
        ids.append(add_webhook(world, endpoint))
        assert process(world, ids[1]) is Disposition.DELIVERED

    (first, body), (second, _) = (_parsed(request) for request in server.requests)
    assert body == BODY
    assert first["content-type"] == "application/json"
    assert [first["webhook-id"], second["webhook-id"]] == [str(world.message(id_)["uid"]) for id_ in ids]
    assert len(first["webhook-signature"].split()) == 1
    for headers, secret in ((first, SECRET), (second, SECRET), (second, FORMER)):
        assert Webhook(secret).verify(body, headers)["type"] == "user.signed_up"


def _parsed(request: bytes) -> tuple[dict[str, str], str]:
    head, _, body = request.decode().partition("\r\n\r\n")
    lines = [line.partition(": ") for line in head.split("\r\n")[1:]]
    return {name.lower(): value for name, _, value in lines}, body


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (500, "the endpoint answered 500"),
        (404, "the endpoint answered 404"),
        (302, "the endpoint answered 302: redirects are not followed"),
    ],
)
def test_a_refusal_fails_the_attempt_and_no_other_event(world: World, status: int, reason: str) -> None:
    with ScriptedEndpoint(answering(status, "Location: /")) as server:
        endpoint = add_endpoint(world, server.port)
        id_ = add_webhook(world, endpoint)
        assert process(world, id_) is Disposition.FAILED
        row = world.message(id_)
        assert (row["attempt"], row["last_error"], row["max_retries"]) == (1, reason, TASK.max_retries)
        assert destination(world, endpoint)["opened_at"] is None

        server.script = answering(200)
        assert process(world, add_webhook(world, endpoint)) is Disposition.DELIVERED


def test_an_event_that_is_answered_500_each_time_is_a_dead_letter_after_five_days(world: World) -> None:
    days = sum(backoff(attempt) for attempt in range(1, TASK.max_retries + 1)) / 86_400
    assert 4.9 < days < 5.6

    with ScriptedEndpoint(answering(500)) as server:
        id_ = add_webhook(world, add_endpoint(world, server.port), attempt=TASK.max_retries)
        assert process(world, id_) is Disposition.DEAD


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_outage_spends_no_attempt_and_waits_as_long_as_it_is_asked_to(world: World, status: int) -> None:
    with ScriptedEndpoint(answering(status, "Retry-After: 120")) as server:
        endpoint = add_endpoint(world, server.port)
        id_ = add_webhook(world, endpoint)
        assert process(world, id_) is Disposition.RELEASED

    row, state = world.message(id_), destination(world, endpoint)
    assert (row["status"], row["attempt"], row["last_error"]) == ("pending", 0, f"the endpoint answered {status}")
    assert 100 < (state["probe_at"] - state["opened_at"]).total_seconds() <= 121
    assert state["last_error"] == f"the endpoint answered {status}"
    assert state["paused_at"] is None


def test_an_endpoint_that_cannot_be_connected_to_is_an_outage_whose_reason_names_no_path(world: World) -> None:
    endpoint = add_endpoint(world, free_port())
    id_ = add_webhook(world, endpoint)

    assert process(world, id_) is Disposition.RELEASED

    assert world.message(id_)["last_error"] == "no connection: connection refused"
    assert destination(world, endpoint)["last_error"] == "no connection: connection refused"


def test_a_private_address_is_an_outage_unless_its_network_is_allowed(world: World) -> None:
    with ScriptedEndpoint(answering(200)) as server:
        endpoint = add_endpoint(world, server.port)
        id_ = add_webhook(world, endpoint)
        assert process(world, id_, webhook_networks=()) is Disposition.RELEASED
        assert server.requests == []
        assert "WEBHOOK_ALLOWED_NETWORKS" in world.message(id_)["last_error"]


def test_no_answer_after_the_request_fails_the_attempt(world: World) -> None:
    with ScriptedEndpoint(list) as server:
        endpoint = add_endpoint(world, server.port)
        id_ = add_webhook(world, endpoint)
        assert process(world, id_) is Disposition.FAILED

    [failure] = world.message(id_)["failures"]
    assert failure["reason"] == "the connection was closed before an answer"
    assert failure["maybe_accepted"] is True
    assert destination(world, endpoint)["opened_at"] is None


def test_410_disables_the_endpoint_and_ends_its_events(world: World) -> None:
    with ScriptedEndpoint(answering(410)) as server:
        endpoint = add_endpoint(world, server.port)
        id_ = add_webhook(world, endpoint)
        assert process(world, id_) is Disposition.RELEASED

    assert world.message(id_)["attempt"] == 0
    assert destination(world, endpoint)["pause_reason"] == "disabled: the endpoint answered 410"
    [row] = world.rows("SELECT fan_out_until <= clock_timestamp() AS has_ended FROM webhook_endpoints")
    assert row["has_ended"]
    assert process(world, add_webhook(world, endpoint)) is Disposition.RELEASED
    assert len(server.requests) == 1


def test_410_that_comes_after_the_endpoint_was_enabled_again_disables_nothing(world: World) -> None:
    def script() -> Iterator[bytes]:
        world.connection.execute("UPDATE webhook_endpoints SET enabled_at = clock_timestamp()")
        yield b"HTTP/1.1 410 X\r\nContent-Length: 0\r\n\r\n"

    with ScriptedEndpoint(script) as server:
        endpoint = add_endpoint(world, server.port)
        assert process(world, add_webhook(world, endpoint)) is Disposition.FAILED

    assert destination(world, endpoint)["paused_at"] is None


@pytest.mark.parametrize(("days", "is_disabled"), [(4, False), (6, True)])
def test_five_days_of_outage_disable_the_endpoint_and_its_events_go_on(
    world: World, days: int, *, is_disabled: bool
) -> None:
    endpoint = add_endpoint(world, free_port())
    id_ = add_webhook(world, endpoint)
    world.connection.execute(
        "INSERT INTO outbox_destinations (name, opened_at, outages, probe_at, probe_id)"
        " VALUES (%s, now() - make_interval(days => %s), 9, '2100-01-01', %s)",
        [f"webhook:{endpoint}", days, id_],
    )

    assert process(world, id_) is Disposition.RELEASED

    reason = "disabled: unavailable for 5 days: no connection: connection refused"
    assert destination(world, endpoint)["pause_reason"] == (reason if is_disabled else None)
    [row] = world.rows("SELECT fan_out_until - now() AS left FROM webhook_endpoints")
    assert (row["left"].days if is_disabled else row["left"]) == (29 if is_disabled else None)


@pytest.mark.parametrize("named", [None, "local", "webhook:999"])
def test_an_event_whose_row_names_another_destination_is_a_dead_letter(world: World, named: str | None) -> None:
    with ScriptedEndpoint(answering(200)) as server:
        endpoint = add_endpoint(world, server.port)
        id_ = add_webhook(world, endpoint, destination=named)
        assert process(world, id_) is Disposition.DEAD

    assert server.requests == []
    assert world.message(id_)["last_error"] == f"its destination has to be webhook:{endpoint}"


def test_neither_log_nor_row_shows_the_path_or_a_secret(world: World, logs: Logs) -> None:
    with ScriptedEndpoint(lambda: [b"HTTP/1.1 200 X\r\nno header\r\n: none\r\n\r\n"]) as server:
        endpoint = add_endpoint(world, server.port)
        process(world, add_webhook(world, endpoint))
        server.script = answering(410)
        process(world, add_webhook(world, endpoint))

    rows = world.rows("SELECT * FROM outbox_messages") + world.rows("SELECT * FROM outbox_destinations")
    for text in (str(logs), str(rows)):
        assert "a-token" not in text
        assert "whsec" not in text


def test_a_bug_of_the_client_fails_the_attempt_and_no_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def post(*_arguments: object, **_more: object) -> Answer:
        raise KeyError("a-token")

    monkeypatch.setattr(WebhookClient, "post", post)
    id_ = add_webhook(world, add_endpoint(world, 1024))

    assert process(world, id_) is Disposition.FAILED
    assert world.message(id_)["last_error"] == "KeyError while the webhook was sent"


def test_what_waits_is_found_by_an_index_and_no_other_message_is_read(world: World, database_url: str) -> None:
    endpoint = add_endpoint(world, 1024)
    world.connection.execute(
        "INSERT INTO outbox (task, payload, destination) SELECT 't', '{}', 'mail' FROM generate_series(1, 2000)"
    )
    add_webhook(world, endpoint)
    world.connection.execute("ANALYZE outbox")

    with explaining(database_url) as connection:
        assert [each.waiting for each in endpoints.list_endpoints(connection)] == [1]
        assert len([*check_webhooks(connection)]) == 0
        endpoints.discard_waiting(connection, endpoint)  # EXPLAIN ANALYZE does it, and the second time nothing waits
        assert world.rows("SELECT FROM outbox WHERE destination <> 'mail'") == []
        assert max(scan.rows for scan in connection.scans) <= 2
