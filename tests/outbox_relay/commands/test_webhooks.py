"""`webhooks`: what an operator does with endpoints, and what every mistake is answered."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from shared.outbox.destinations.control import Resumed, resume
from shared.outbox.messages import DeliverWebhook
from shared.webhooks import endpoints
from tests.outbox_relay.commands.running import run, run_json
from tests.rows import add_message, message
from tests.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]

URL = "https://hooks.example.com/T0/a-token"


def add(name: str = "shop", *options: str) -> dict[str, Any]:
    added: dict[str, Any] = run_json("webhooks", "add", name, URL, *options)
    return added


def wait_for(connection: Connection, endpoint_id: int, count: int, **columns: Any) -> list[int]:
    payload = {"endpoint_id": endpoint_id, "body": "{}"}
    destination = f"webhook:{endpoint_id}"
    return [
        add_message(connection, DeliverWebhook.task, payload, destination=destination, **columns) for _ in range(count)
    ]


def state(name: str = "shop") -> str:
    return str(run_json("webhooks", "show", name)["state"])


def test_an_endpoint_is_added_with_a_secret_that_is_shown_once(connection: Connection) -> None:
    added = run("webhooks", "add", "shop", URL)

    assert added.exit_code == 0
    [(secret,)] = connection.execute("SELECT secret FROM webhook_secrets").fetchall()
    assert secret in added.output
    assert "a-token" not in added.output
    for command in (("list",), ("show", "shop"), ("list", "--json"), ("show", "shop", "--json")):
        output = run("webhooks", *command).output
        assert "https://hooks.example.com" in output
        assert "token" not in output
        assert "whsec_" not in output
    assert run_json("webhooks", "show", "shop")["events"] == ["user.signed_up", "user.verified"]


def test_it_gets_the_events_that_are_named(connection: Connection) -> None:
    assert add("one", "--event", "user.verified", "--event", "user.verified")["events"] == ["user.verified"]
    assert connection.execute("SELECT events FROM webhook_endpoints").fetchall() == [(["user.verified"],)]


def test_a_second_one_of_the_name_is_refused(connection: Connection) -> None:
    add()

    again = run("webhooks", "add", "shop", URL)

    assert again.exit_code == 1
    assert "another endpoint has this name" in again.output
    assert connection.execute("SELECT count(*) FROM webhook_secrets").fetchone() == (1,)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("add", "Shop", URL), "a-z 0-9"),
        (("add", "shop", "hooks.example.com/a-token"), "begin with https://"),
        (("add", "shop", "https://user:a-token@example.com/"), "a user or a password"),
        (("add", "shop", "https://example.com:25/a-token"), "the port has to be"),
        (("add", "shop", URL, "--event", "user.deleted"), "user.signed_up"),
        (("disable", "shop", "--reason", " "), "a few words"),
        (("rotate", "shop", "--overlap-hours", "-1"), "--overlap-hours"),
    ],
)
def test_a_wrong_argument_is_refused_without_the_url(arguments: tuple[str, ...], text: str) -> None:
    refused = run("webhooks", *arguments)

    assert refused.exit_code == 2
    assert text in refused.output
    assert "a-token" not in refused.output


@pytest.mark.parametrize(
    "arguments",
    [("show",), ("test",), ("rotate",), ("disable", "--reason", "x"), ("enable",), ("remove", "--yes")],
)
@pytest.mark.usefixtures("connection")
def test_an_unknown_endpoint_is_named(arguments: tuple[str, ...]) -> None:
    command, *options = arguments

    unknown = run("webhooks", command, "nobody", *options)

    assert unknown.exit_code == 1
    assert "nobody: there is no such endpoint" in unknown.output


def test_a_rotated_secret_signs_beside_the_former_one_for_a_while(connection: Connection) -> None:
    first = add()["secret"]

    second = run_json("webhooks", "rotate", "shop", "--overlap-hours", "1")["secret"]
    assert run_json("webhooks", "show", "shop")["secrets"] == 2
    run_json("webhooks", "rotate", "shop", "--overlap-hours", "48")
    third = run_json("webhooks", "rotate", "shop", "--overlap-hours", "0")["secret"]

    rows = connection.execute("SELECT secret, ends_at <= clock_timestamp() FROM webhook_secrets ORDER BY id").fetchall()
    assert len({first, second, third}) == 3
    # Each rotation deletes what had ended before it.
    assert [has_ended for _, has_ended in rows] == [True, True, True, None]
    assert run_json("webhooks", "show", "shop")["secrets"] == 1


def test_a_disabled_endpoint_is_paused_and_enabled_again_with_a_closed_breaker(connection: Connection) -> None:
    id_ = add()["id"]
    connection.execute(
        "INSERT INTO outbox_destinations (name, opened_at, probe_at, outages)"
        " VALUES (%s, now() - interval '6 days', now(), 40)",
        [f"webhook:{id_}"],
    )

    assert run("webhooks", "disable", "shop", "--reason", "they move").exit_code == 0
    assert "disabled since" in state()
    assert "they move; its events end at" in state()
    assert run("webhooks", "test", "shop").output == "shop is disabled: `webhooks enable shop` enables it\n"
    assert resume(connection, f"webhook:{id_}") is Resumed.DISABLED

    assert run("webhooks", "enable", "shop").output == "shop is enabled; what waits is sent\n"
    assert state() == "enabled"
    row = connection.execute("SELECT opened_at, outages, probe_at, paused_at FROM outbox_destinations").fetchone()
    assert row == (None, 0, None, None)
    assert connection.execute("SELECT fan_out_until FROM webhook_endpoints").fetchone() == (None,)


def test_what_waits_is_counted(connection: Connection) -> None:
    id_ = add()["id"]
    wait_for(connection, id_, 3)

    assert run_json("webhooks", "list")[0]["waiting"] == 3


def test_a_removed_endpoint_takes_what_waits_with_it(connection: Connection) -> None:
    id_, other = add()["id"], add("other")["id"]
    waiting, running = wait_for(connection, id_, 5), wait_for(connection, id_, 1, status="running")[0]
    kept = [*wait_for(connection, other, 2), add_message(connection)]
    run("webhooks", "disable", "shop", "--reason", "gone")

    removed = run("webhooks", "remove", "shop", answer="y\n")

    assert "5 messages are discarded" in removed.output
    assert {message(connection, each)["status"] for each in waiting} == {"discarded"}
    assert {message(connection, each)["status"] for each in kept} == {"pending"}
    assert message(connection, running)["status"] == "running"
    # Without a pause what comes late is published, claimed and discarded.
    assert connection.execute("SELECT count(*) FROM outbox_destinations").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM webhook_secrets").fetchone() == (1,)
    assert add()["id"] > other


def test_what_waits_is_discarded_in_bounded_steps(connection: Connection) -> None:
    id_ = add()["id"]
    wait_for(connection, id_, 5)

    assert [endpoints.discard_waiting(connection, id_, 2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_removal_that_was_stopped_is_finished_by_the_next_one(connection: Connection) -> None:
    id_ = add()["id"]
    wait_for(connection, id_, 2)
    endpoints.begin_removal(connection, id_)

    assert "webhooks remove shop" in run_json("webhooks", "list")[0]["state"]
    assert run("webhooks", "add", "shop", URL).exit_code == 1
    for command in ("test", "rotate", "enable"):
        assert "is being removed" in run("webhooks", command, "shop").output

    assert run_json("webhooks", "remove", "shop", "--yes")["discarded"] == 2
    assert add()["id"] != id_


def test_a_test_that_nobody_carries_out_is_discarded(connection: Connection) -> None:
    add()

    tested = run("webhooks", "test", "shop", "--wait", "0")

    assert tested.exit_code == 1
    assert "do relay and workers run?" in tested.output
    assert connection.execute("SELECT status, last_error FROM outbox_messages").fetchall() == [
        ("discarded", "discarded: the test of an endpoint failed")
    ]


@pytest.mark.parametrize(
    ("change", "exit_code", "text"),
    [
        ("DELETE FROM outbox", 1, "it is gone"),
        ("UPDATE outbox SET last_error = 'the endpoint answered 500', attempt = 1", 1, "the endpoint answered 500"),
    ],
)
def test_a_test_shows_the_result(connection: Connection, change: str, exit_code: int, text: str) -> None:
    add()
    with ThreadPoolExecutor(1) as pool:
        tested = pool.submit(run, "webhooks", "test", "shop", "--wait", "2")
        wait_until(lambda: connection.execute("SELECT FROM outbox").fetchone() is not None, 10, "the test's message")
        connection.execute(change.encode())

        assert tested.result().exit_code == exit_code
        assert text in tested.result().output
