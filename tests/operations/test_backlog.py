"""Beside a huge backlog: what monitoring reads of it, what it says about it, and whom it holds up."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import psycopg
import pytest
from prometheus_client import generate_latest

from api.ops.snapshot import read_snapshot as read_console_snapshot
from outbox_relay.commands.stats import read_snapshot
from outbox_relay.doctor.outbox_checks import check_outbox
from outbox_relay.metrics.latency import LatencyCollector
from outbox_relay.metrics.relay_metrics import RelayMetrics
from shared.database.connections import connect
from shared.database.read_transaction import read_transaction
from shared.outbox.operations import dead_letters
from shared.outbox.operations.stats import COUNTED_EXACTLY, LiveState, read_dependency_status, read_live_states
from tests.operations.scraping import samples, value
from tests.plans import ExplainingConnection, explaining
from tests.programs.api_service import ApiService, api_service
from tests.rows import add_message
from tests.settings.relay import relay_settings
from tests.waiting import wait_until

MANY = 12_000
WIDE = f'{{"filler": "{"x" * 300}"}}'
"""A payload with which twice MANY messages fill a thousand pages, so that a sample is a part of them."""
TOKEN = "the token of these tests: 32 and more characters"  # noqa: S105 - the tests' own
STATES = ("pending", "published", "running", "dead")


def fill(connection: psycopg.Connection[Any], state: str, count: int = MANY, payload: str = "{}") -> None:
    """Add so many messages of one state and queue, an hour old."""
    columns = {
        "pending": ("", ""),
        "published": (", broker_epoch, published_at, lease_until", ", 'e', at, now() + interval '1 minute'"),
        "running": (
            ", attempt, claim_token, claimed_at, lease_until",
            ", 1, gen_random_uuid(), at, now() + interval '1 minute'",
        ),
        "dead": (", attempt, last_error, claimed_at", ", 11, 'x', at"),
    }[state]
    connection.execute(
        f"INSERT INTO outbox (task, payload, destination, status, due_at, created_at{columns[0]})"
        f" SELECT 't', %s, 'mail', '{state}', at, at{columns[1]}"
        f" FROM generate_series(1, {count}) AS n,"
        " LATERAL (SELECT now() - interval '1 h' + n * interval '0.1 s') AS t (at)",
        [payload],
    )


def add_history(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        f"""
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT n, 't', '{{}}', 'default', 'done', at, 0, 1, 10, '[]', at, at
          FROM generate_series(1, {MANY}) AS n, LATERAL (SELECT now() - n * interval '1 minute') AS t (at)
        """
    )


def read_everything(connection: ExplainingConnection, database_url: str) -> None:
    """Ask all that metrics, stats, console and doctor ask."""
    with read_transaction(connection):
        read_live_states(connection)
        read_dependency_status(connection)
        read_console_snapshot(connection)
        dead_letters.list_dead(connection, 50)
        dead_letters.count_dead(connection)
    read_snapshot(connection, 300)
    check_outbox(connection, relay_settings(database_url, "redis://127.0.0.1:1/0"))
    collector = LatencyCollector(lambda: cast("Any", _left_open(connection)))
    list(collector.collect())
    list(collector.collect())


class _left_open:  # noqa: N801 - a context manager in place of a connection
    """Lends a connection without closing it."""

    def __init__(self, connection: ExplainingConnection) -> None:
        self._connection = connection

    def __enter__(self) -> ExplainingConnection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("many", [("pending", "running"), ("published", "dead")])
def test_no_number_reads_a_whole_table(database_url: str, many: tuple[str, str]) -> None:
    with connect(database_url, "test") as connection, explaining(database_url) as explained:
        connection.execute("ANALYZE outbox, outbox_finished")
        add_history(connection)
        for state in STATES:
            fill(connection, state, MANY if state in many else 10, WIDE)
        read_everything(explained, database_url)
        connection.execute("VACUUM ANALYZE outbox, outbox_finished")
        read_everything(explained, database_url)

    assert len(explained.scans) > 40
    assert [scan for scan in explained.scans if scan.kind == "Seq Scan" or scan.rows > COUNTED_EXACTLY + 1] == []


@pytest.fixture(scope="module")
def backlog_url(postgres: Any, database_template: str) -> Iterator[str]:
    """A database with MANY messages pending, an hour old and on default, and two on critical."""
    name = f"{database_template}_backlog"
    url = postgres.create_database(name, template=database_template)
    with connect(url, "test") as connection:
        fill(connection, "pending")
        for _ in range(2):
            add_message(connection, queue="critical")
    yield url
    postgres.drop_database(name)


def live(found: list[LiveState], state: str, queue: str) -> LiveState:
    [each] = [each for each in found if (each.status, each.queue) == (state, queue)]
    return each


def test_what_is_too_much_to_be_counted_is_estimated_and_said_to_be(backlog_url: str) -> None:
    with connect(backlog_url, "test") as connection, read_transaction(connection):
        found = read_live_states(connection)

    default = live(found, "pending", "default")
    assert default.is_estimate
    assert default.messages == pytest.approx(MANY, rel=0.1)
    assert default.oldest_seconds == pytest.approx(3600, abs=60)
    assert live(found, "pending", "critical").messages == 2
    assert not live(found, "pending", "critical").is_estimate


@pytest.mark.parametrize("state", ["published", "running", "dead"])
def test_the_oldest_of_an_estimated_state_is_nearly_the_oldest(database_url: str, state: str) -> None:
    with connect(database_url, "test") as connection:
        fill(connection, state)
        with read_transaction(connection):
            found = live(read_live_states(connection), state, "default")

    assert (found.is_estimate, found.messages) == (True, pytest.approx(MANY, rel=0.1))
    assert found.oldest_seconds == pytest.approx(3600, rel=0.1)


def test_the_age_of_the_oldest_pending_message_is_exact_whatever_its_destination(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        # On a page that the sample does not have.
        fill(connection, "pending", payload=WIDE)
        connection.execute("UPDATE outbox SET destination = 'mail', due_at = 'infinity' WHERE id = 1")
        connection.execute(
            "INSERT INTO outbox (task, payload, due_at, destination)"
            " SELECT 't', '{}', now() - make_interval(hours => n), 'webhook:' || n FROM generate_series(2, 4) AS n"
        )
        with read_transaction(connection):
            default = live(read_live_states(connection), "pending", "default")

    assert (default.is_estimate, default.oldest_seconds) == (True, pytest.approx(4 * 3600, abs=60))


def test_a_scrape_says_which_numbers_are_estimates(backlog_url: str) -> None:
    with api_service(backlog_url) as service:
        found = samples(service.client().get("/metrics").text)

    assert value(found, "outbox_messages", status="pending", queue="default") == pytest.approx(MANY, rel=0.1)
    assert value(found, "outbox_messages_estimated", status="pending", queue="default") == 1
    assert value(found, "outbox_messages_estimated", status="pending", queue="critical") == 0
    assert (value(found, "outbox_postgresql_up"), value(found, "outbox_unreadable", reason="timeout")) == (1, 0)


@contextmanager
def locked(database_url: str, table: str) -> Iterator[None]:
    """Keep every statement about the table waiting, as one that takes long would."""
    with connect(database_url, "a forgotten migration") as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


def test_reads_that_take_too_long_do_not_look_like_postgresql_being_away(database_url: str) -> None:
    with api_service(database_url) as service, locked(database_url, "outbox"):
        found = samples(service.client().get("/metrics").text)

    assert (value(found, "outbox_postgresql_up"), value(found, "outbox_unreadable", reason="timeout")) == (1, 1)
    assert ("outbox_relays_alive", ()) not in found


def test_a_table_that_is_missing_does_not_look_like_postgresql_being_away(database_url: str) -> None:
    relay = RelayMetrics(database_url)
    with api_service(database_url) as service:
        service.sql("DROP TABLE outbox_relays")
        scrapes = [service.client().get("/metrics").text, generate_latest(relay.registry).decode()]

    for found in map(samples, scrapes):
        assert (value(found, "outbox_postgresql_up"), value(found, "outbox_unreadable", reason="schema")) == (1, 1)


def test_reads_that_take_long_are_cancelled_and_hold_up_no_signup(database_url: str) -> None:
    with api_service(database_url, ops_token=TOKEN) as service, ThreadPoolExecutor(20) as browsers:
        session = session_of_console(service)
        # The console reads history, and a signup does not.
        with locked(database_url, "outbox_finished"):
            looks = [browsers.submit(look_at_console, service, session) for _ in range(20)]
            wait_until(lambda: statements_of_the_api(service), 10, "a look to begin")
            statuses = [service.sign_up(username=f"user{n}", email=f"u{n}@example.com").status_code for n in range(3)]
            still_looking = sum(not each.done() for each in looks)
            answers = {each.result() for each in looks}
            left_over = statements_of_the_api(service)

    assert (statuses, answers, left_over) == ([201] * 3, {503}, [])
    assert still_looking


def session_of_console(service: ApiService) -> str:
    """Return the cookie of a session: each look asks the database about it, and logging in would be a look too."""
    opened = service.client().post("/ops/login", data={"token": TOKEN})
    return opened.headers["Set-Cookie"].partition(";")[0]


def look_at_console(service: ApiService, session: str) -> int:
    client = service.client()
    client.set_cookie(*session.split("=", 1), path="/ops")
    return client.get("/ops/snapshot").status_code


def statements_of_the_api(service: ApiService) -> list[dict[str, Any]]:
    return service.sql(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'outbox-api'"
        " AND state = 'active'"
    )
