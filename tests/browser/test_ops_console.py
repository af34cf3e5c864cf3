"""The console, as an operator uses it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from outbox_relay.loop.heartbeat import write_heartbeat
from shared.database.connections import DbConnection, connect
from tests.browser.chromium import NARROW, Browser
from tests.browser.conftest import Keep
from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded
from tests.rows import add_message, message, open_breaker
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

TOKEN = "the token of these tests: 32 and more characters"  # noqa: S105 - the tests' own
CONSOLE_WIDTH = 1100
REFRESHED_SECONDS = 20

HISTORY = """
INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries, failures,
                             created_at, published_at, claimed_at, finished_at)
SELECT 100000 + n, 'task:send_verify_email', '{}', 'critical', 'done', at, 0, 1, 10, '[]', at - took, at - took / 2,
       at - took / 3, at
  FROM generate_series(1, 3600) AS n,
       LATERAL (SELECT now() - n * interval '1 second', make_interval(secs =>
                    0.4 + 0.1 * sin(n / 200.0) + CASE WHEN n % 97 = 0 THEN 0.7 ELSE 0 END)) AS t (at, took)
"""

FAILURES = [
    {"at": "2026-11-24T10:17:50+00:00", "attempt": 10, "reason": "451 4.3.0 try again later"},
    {
        "at": "2026-11-24T13:05:01+00:00",
        "attempt": 11,
        "reason": "no answer after the mail was sent",
        "maybe_accepted": True,
    },
]


@pytest.fixture
def connection(database_url: str) -> Iterator[DbConnection]:
    """The outbox of a service at work, with dead letters."""
    with connect(database_url, "test") as open_connection:
        open_connection.execute(HISTORY)
        open_connection.execute("SELECT pg_stat_force_next_flush()")
        for name in ("relay-1/7", "relay-2/7"):
            write_heartbeat(open_connection, name)
        add_message(open_connection, status="dead", attempt=1, last_error="refused for good: 550 5.1.1 no such mailbox")
        add_message(
            open_connection,
            queue="critical",
            status="dead",
            claimed_at="now",
            last_error="no answer after the mail was sent",
            failures=Jsonb(FAILURES),
        )
        for number in range(5):
            reason = f"451 4.7.1 <[address]>: greylisted, come back in {60 + number} seconds"
            add_message(open_connection, status="dead", claimed_at="now", last_error=reason)
        for _ in range(12):
            add_message(open_connection, queue="critical")
        add_message(open_connection, task="task:deliver_webhook", destination="webhook:1")
        open_connection.execute(
            "INSERT INTO outbox_destinations (name, opened_at, probe_at, last_error, max_per_second) VALUES"
            " ('webhook:1', now() - interval '9 min', now(), 'cannot connect: Connection refused', NULL),"
            " ('billing', NULL, NULL, NULL, 5)"
        )
        yield open_connection


@pytest.fixture
def address(api_origin: Preloaded, connection: DbConnection, database_url: str, tmp_path: Path) -> Iterator[str]:
    with gunicorn(api_origin, database_url, tmp_path / "gunicorn.log", OPS_TOKEN=TOKEN) as client:
        yield str(client.base_url).rstrip("/")


def test_operator_sees_the_messages_and_decides_about_dead_letters(
    browser: Browser, keep: Keep, address: str, connection: DbConnection
) -> None:
    browser.look_at(CONSOLE_WIDTH)
    browser.open(f"{address}/ops")
    browser.fill_in(token=TOKEN)
    browser.find("#snapshot")
    keep("ops-console")

    browser.click("2")
    browser.heading("Message 2")
    assert "451 4.3.0 try again later" in browser.text()
    keep("ops-message")

    browser.click("Overview")
    browser.find("form[action$='/1/discard'] input[name=reason]").send_keys("the user left")
    browser.find("form[action$='/1/discard'] button").click()
    wait_until(lambda: message(connection, 1)["status"] == "discarded", 10, "the dead letter to be discarded")
    browser.find("form[action$='/2/retry'] button").click()
    wait_until(lambda: message(connection, 2)["status"] == "pending", 10, "the dead letter to be retried")
    browser.find("form[action*='/failure-groups/'] button").click()
    wait_until(lambda: "No dead letters." in browser.text(), 10, "the console without dead letters")
    browser.find("form[action$='/mail/pause'] input[name=reason]").send_keys("the move")
    browser.find("form[action$='/mail/pause'] button").click()
    wait_until(lambda: "the move" in browser.text(), 10, "the pause in the console")
    browser.find("form[action$='/mail/resume'] button").click()
    wait_until(lambda: "the move" not in browser.text(), 10, "the console without the pause")


@pytest.mark.long
def test_the_console_refreshes_itself_and_fits_a_phone(
    browser: Browser, keep: Keep, address: str, connection: DbConnection
) -> None:
    browser.look_at(NARROW)
    browser.open(f"{address}/ops")
    browser.fill_in(token=TOKEN)
    browser.find("#snapshot")
    keep("ops-console-narrow")

    open_breaker(connection, open_seconds=9 * 60)

    wait_until(
        lambda: "unreachable for 9 min" in browser.text(), REFRESHED_SECONDS, "the console to show the outage by itself"
    )
