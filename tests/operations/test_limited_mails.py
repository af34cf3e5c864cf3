"""What waits for a limit is shown where an operator looks, and taken for stuck nowhere."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from prometheus_client import generate_latest

from outbox_relay.loop.maintenance.mail_pruner import MailPruner
from outbox_relay.metrics.relay_metrics import RelayMetrics
from shared.database.connections import connect
from tests.operations.scraping import samples, value
from tests.outbox_relay.commands.running import run, run_json
from tests.programs.api_service import ApiService, api_service

Connection = psycopg.Connection[tuple[Any, ...]]
TOKEN = "the token of these tests: 32 and more characters"  # noqa: S105 - the tests' own


@pytest.fixture
def connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    with connect(database_url, "test") as open_connection:
        yield open_connection


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url, ops_token=TOKEN) as service:
        yield service


def asked(connection: Connection, id_: int, state: str, due: str, *, delivered: bool = True) -> None:
    """A mail to the account of that number, as the API records it, and its message."""
    connection.execute(
        "INSERT INTO verification_mails (message_id, mailbox_hmac, address_hmac, state, due_at)"
        " VALUES (%s, 'm', 'a', %s, now() + %s::interval)",
        [id_, state, due],
    )
    if not delivered:
        connection.execute(
            "INSERT INTO outbox (id, task, payload, queue, due_at) OVERRIDING SYSTEM VALUE"
            " VALUES (%s, 't', jsonb_build_object('username', %s::text), 'critical', now() + %s::interval)",
            [id_, f"user_{id_}", due],
        )
        return
    connection.execute(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        VALUES (%s, 't', jsonb_build_object('username', %s::text), 'critical', 'done', now(), 0, 1, 10, '[]',
                now() - interval '9 days', now() + %s::interval)
        """,
        [id_, f"user_{id_}", due],
    )


def account(connection: Connection, id_: int, *, verified: bool) -> None:
    connection.execute(
        "INSERT INTO users (username, email, full_name, hashed_password, is_email_verified)"
        " VALUES (%s, %s, 'x', '!', %s)",
        [f"user_{id_}", f"user_{id_}@example.com", verified],
    )


def test_what_waits_and_what_was_discarded_is_shown_everywhere(connection: Connection, api: ApiService) -> None:
    for id_, (state, due) in enumerate([("waiting", "1 hour"), ("daily", "2 days"), ("waiting", "-1 s")], start=1):
        asked(connection, id_, state, due, delivered=False)
    for id_, due in enumerate(["-1 hour", "-23 hours", "-25 hours"], start=11):
        asked(connection, id_, "discarded", due)

    mails = run_json("stats")["mails"]
    client = api.client()
    client.post("/ops/login", data={"token": TOKEN})

    assert (mails["waiting"], mails["discarded"]) == (2, 2)
    assert "mail limits   2 waiting, 2 discarded in the last day" in run("stats").output
    assert "Mail limits: 2 waiting, 2 discarded in the last day" in client.get("/ops/snapshot").text
    for text in (client.get("/metrics").text, generate_latest(RelayMetrics(api.database_url).registry).decode()):
        found = samples(text)
        assert [value(found, "outbox_limited_mails", state=state) for state in ("waiting", "discarded")] == [2, 2]


def test_what_waits_is_not_stuck(connection: Connection, api: ApiService) -> None:
    asked(connection, 1, "waiting", "1 hour", delivered=False)

    found = samples(api.client().get("/metrics").text)
    [waiting] = [each for each in run_json("doctor") if each["check"] == "waiting"]

    assert value(found, "outbox_messages", status="pending", queue="critical") == 1
    assert value(found, "outbox_oldest_seconds", status="pending", queue="critical") == 0
    assert waiting["severity"] == "ok"
    assert api.client().get("/readyz").status_code == 200


def test_the_wait_for_a_limit_is_no_slow_delivery(connection: Connection) -> None:
    asked(connection, 1, "waiting", "-5 s")

    [latency] = run_json("stats", "--window", 60)["latency"]

    assert (latency["done"], latency["delivery_p99"] < 1) == (1, True)


def test_accounts_that_are_never_verified_are_counted(connection: Connection, api: ApiService) -> None:
    for id_, due in enumerate(["-25 hours", "-26 hours", "-47 hours", "-23 hours", "-49 hours"], start=1):
        asked(connection, id_, "prompt", due)
        account(connection, id_, verified=id_ == 1)
    asked(connection, 7, "prompt", "-30 hours")  # its account expired

    found = samples(api.client().get("/metrics").text)

    assert [value(found, "outbox_mailed_accounts", verified=each) for each in ("yes", "no")] == [1, 3]


def test_what_counts_no_longer_is_deleted(connection: Connection) -> None:
    for id_, (state, due) in enumerate(
        [("prompt", "-9 days"), ("discarded", "-9 days"), ("prompt", "-7 days"), ("waiting", "3 days")], start=1
    ):
        asked(connection, id_, state, due)

    assert MailPruner(7).step(connection) is False

    left = connection.execute("SELECT message_id FROM verification_mails ORDER BY 1").fetchall()
    assert left == [(3,), (4,)]


def test_hours_that_are_over_are_deleted(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO mail_counts VALUES ('total', now() - interval '25 hours', 1, 7), ('total', now(), 1, 7)"
    )

    MailPruner(7).step(connection)

    assert connection.execute("SELECT count(*) FROM mail_counts").fetchone() == (1,)
