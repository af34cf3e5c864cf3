"""The relay's /metrics: its own work, the outbox's state, and how long messages took."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client import generate_latest
from rq.defaults import RQ_KEY_PREFIX

from embedded.programs.ports import LOOPBACK, free_port
from outbox_relay.broker import BrokerUnavailableError, open_broker
from outbox_relay.doctor.grants_check import RELAY_NEEDS
from outbox_relay.loop.reaper import SweepResult
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.wakeup_pipe import WakeupPipe
from outbox_relay.metrics.liveness import READY_SECONDS, STILL_SECONDS
from outbox_relay.metrics.relay_metrics import RelayMetrics
from outbox_relay.metrics.server import serve
from shared.database.connections import connect
from shared.outbox.reaping import Reaped
from shared.settings.relay import RelaySettings, read_relay_settings
from tests.clock import Clock
from tests.operations.scraping import Samples, samples, value
from tests.rows import add_message, history_rows_read
from tests.servers.roles import limited_role, with_role

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "test") as open_connection:
        yield open_connection


def scrape(metrics: RelayMetrics) -> Samples:
    return samples(generate_latest(metrics.registry).decode())


@contextmanager
def relay_with(metrics: RelayMetrics, settings: RelaySettings) -> Iterator[Relay]:
    broker = open_broker(settings.redis_url, settings.key_prefix, settings.run_lease_seconds)
    with closing(WakeupPipe()) as wakeup, closing(Relay(settings, broker, wakeup, metrics)) as relay:
        yield relay


@pytest.fixture
def settings(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> RelaySettings:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("RQ_REDIS_URL", redis_url)
    monkeypatch.setenv("RQ_KEY_PREFIX", RQ_KEY_PREFIX)
    return read_relay_settings()


def test_a_pass_is_counted(connection: Connection, settings: RelaySettings) -> None:
    for _ in range(3):
        add_message(connection, queue="critical")
    add_message(connection, status="published", broker_epoch="another life")
    metrics = RelayMetrics(settings.database_url)
    with relay_with(metrics, settings) as relay:
        relay.run_once()

    found = scrape(metrics)
    assert value(found, "outbox_pushed_messages_total") == 4
    assert value(found, "outbox_push_batch_messages_bucket", le="10.0") == 1
    assert value(found, "outbox_returned_messages_total", cause="epoch") == 1
    assert value(found, "outbox_returned_messages_total", cause="lease") == 0
    assert value(found, "outbox_step_seconds_count", step="publish") == 1
    assert value(found, "outbox_messages", status="published", queue="critical") == 3
    assert value(found, "outbox_relays_alive") == 1


def test_an_outage_is_counted_once_and_its_end_is_seen() -> None:
    metrics = RelayMetrics("postgresql://127.0.0.1:1/x")
    metrics.outage("redis")
    during = scrape(metrics)
    metrics.recovery()

    after = scrape(metrics)
    assert value(during, "outbox_server_away", of="redis") == 1
    assert (value(after, "outbox_server_away", of="redis"), value(after, "outbox_outages_total", of="redis")) == (0, 1)


def test_reaped_claims_are_counted_by_what_became_of_the_message() -> None:
    metrics = RelayMetrics("postgresql://127.0.0.1:1/x")
    metrics.claims_reaped([Reaped(1, "pending", 2), Reaped(2, "dead", 11)])
    metrics.sweep_ended(SweepResult(renewed=5))
    metrics.pass_ends(0, 7)

    found = scrape(metrics)
    assert [value(found, "outbox_reaped_claims_total", status=status) for status in ("pending", "dead")] == [1, 1]
    assert value(found, "outbox_renewed_messages_total") == 5
    assert value(found, "outbox_pruned_messages_total") == 7


def test_without_postgresql_a_scrape_says_so_and_keeps_what_this_process_counted() -> None:
    metrics = RelayMetrics(f"postgresql://127.0.0.1:{free_port()}/x")
    metrics.pass_ends(3, 0)

    found = scrape(metrics)

    assert (value(found, "outbox_postgresql_up"), value(found, "outbox_pushed_messages_total")) == (0, 3)
    assert ("outbox_relays_alive", ()) not in found


def finish(connection: Connection, count: int, *, ago: float, took: float, attempt: int = 1) -> None:
    """Make history of messages that ended `ago` seconds ago after `took` seconds."""
    connection.execute(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, published_at, finished_at)
        SELECT (SELECT count(*) FROM outbox_finished) + n, 't', '{}', 'critical', 'done', ended - took, 0, %(attempt)s,
               10, '[]', ended - took, ended - took / 2, ended
          FROM generate_series(1, %(count)s) AS n,
               make_interval(secs => %(took)s) AS took,
               (SELECT clock_timestamp() - make_interval(secs => %(ago)s)) AS at (ended)
        """,
        {"count": count, "ago": ago, "took": took, "attempt": attempt},
    )


def test_each_latency_is_counted_once_from_the_first_scrape_on(connection: Connection, database_url: str) -> None:
    finish(connection, 50, ago=60, took=1)
    metrics = RelayMetrics(database_url, settled_seconds=0.0)
    before = scrape(metrics)
    finish(connection, 4, ago=0, took=0.4)
    finish(connection, 1, ago=0, took=7, attempt=3)

    first, second = scrape(metrics), scrape(metrics)

    assert value(before, "outbox_delivery_seconds_count", queue="critical") == 0
    for found in (first, second):
        assert value(found, "outbox_delivery_seconds_bucket", queue="critical", le="0.25") == 0
        assert value(found, "outbox_delivery_seconds_bucket", queue="critical", le="0.5") == 4
        assert value(found, "outbox_delivery_seconds_count", queue="critical") == 5
        assert value(found, "outbox_delivery_seconds_sum", queue="critical") == pytest.approx(8.6, abs=0.1)
        assert value(found, "outbox_publish_seconds_bucket", queue="critical", le="0.25") == 4
        assert value(found, "outbox_attempts_per_message_bucket", queue="critical", le="1.0") == 4
        assert value(found, "outbox_attempts_per_message_bucket", queue="critical", le="3.0") == 5


def test_no_scrape_reads_the_whole_history(connection: Connection, database_url: str) -> None:
    finish(connection, 20_000, ago=86_400, took=1)
    connection.execute("ANALYZE outbox_finished")
    metrics = RelayMetrics(database_url)
    before = history_rows_read(connection)

    for _ in range(3):
        scrape(metrics)

    assert history_rows_read(connection) - before < 1000


@contextmanager
def served(metrics: RelayMetrics) -> Iterator[httpx.Client]:
    server = serve((LOOPBACK, free_port()), metrics)
    try:
        with httpx.Client(base_url=f"http://{LOOPBACK}:{server.server_port}", trust_env=False) as client:
            yield client
    finally:
        server.shutdown()
        server.server_close()


def test_the_relay_answers_on_its_address(database_url: str) -> None:
    with served(RelayMetrics(database_url)) as client:
        found = samples(client.get("/metrics").text)
        elsewhere = client.get("/")

    assert value(found, "outbox_postgresql_up") == 1
    assert elsewhere.status_code == 404


def test_a_relay_is_alive_and_ready_after_a_pass_that_worked_and_not_after_its_start() -> None:
    metrics = RelayMetrics("postgresql://127.0.0.1:1/x")
    with served(metrics) as client:
        metrics.pass_begins()
        started = [client.get(path) for path in ("/healthz", "/readyz")]
        metrics.pass_ends(0, 0)
        worked = [client.get(path) for path in ("/healthz", "/readyz")]

    assert [answer.status_code for answer in started] == [503, 503]
    assert "no pass has worked yet" in started[0].text
    assert [answer.status_code for answer in worked] == [200, 200]


def test_a_relay_that_waits_for_a_server_is_alive_and_not_ready() -> None:
    metrics = RelayMetrics("postgresql://127.0.0.1:1/x")
    with served(metrics) as client:
        metrics.pass_begins()
        metrics.outage("redis")
        alive, ready = client.get("/healthz"), client.get("/readyz")
        metrics.pass_begins()
        metrics.pass_ends(0, 0)
        metrics.recovery()
        back = client.get("/readyz")

    assert (alive.status_code, ready.status_code, back.status_code) == (200, 503, 200)
    assert "redis is unavailable" in ready.text


@pytest.mark.parametrize("server_away", [False, True])
def test_a_relay_whose_pass_does_not_end_is_not_alive(*, server_away: bool) -> None:
    clock = Clock()
    metrics = RelayMetrics("postgresql://127.0.0.1:1/x", clock)
    with served(metrics) as client:
        metrics.pass_begins()
        metrics.pass_ends(0, 0)
        if server_away:
            metrics.outage("postgresql")
        clock.now += READY_SECONDS
        late = client.get("/readyz")
        clock.now += STILL_SECONDS - READY_SECONDS
        stuck = client.get("/healthz")

    assert (late.status_code, stuck.status_code) == (503, 503)


def test_a_relay_that_cannot_use_redis_is_not_seen_by_others(connection: Connection, settings: RelaySettings) -> None:
    metrics = RelayMetrics(settings.database_url)
    nowhere = replace(settings, redis_url=f"redis://{LOOPBACK}:{free_port()}/0")
    with relay_with(metrics, nowhere) as relay, pytest.raises(BrokerUnavailableError):
        relay.run_once()
    unseen = value(scrape(metrics), "outbox_relays_alive")
    with relay_with(metrics, settings) as relay:
        relay.run_once()

    assert (unseen, value(scrape(metrics), "outbox_relays_alive")) == (0, 1)


def test_a_relay_works_with_the_grants_that_doctor_asks_for(connection: Connection, settings: RelaySettings) -> None:
    add_message(connection)
    add_message(connection, status="published", broker_epoch="another life")
    add_message(connection, status="running", lease_until="2020-01-01T00:00:00Z")
    finish(connection, 3, ago=30 * 86_400, took=1)
    metrics = RelayMetrics(settings.database_url)
    with limited_role(connection, RELAY_NEEDS) as role:
        limited = replace(settings, database_url=with_role(settings.database_url, role))
        with relay_with(metrics, limited) as relay:
            relay.run_once()

    found = scrape(metrics)
    assert value(found, "outbox_returned_messages_total", cause="epoch") == 1
    assert value(found, "outbox_pruned_messages_total") == 3
    assert value(found, "outbox_relays_alive") == 1
