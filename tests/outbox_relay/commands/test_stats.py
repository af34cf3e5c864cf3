"""`stats`: the numbers, and that a relay makes itself seen."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outbox_relay.loop.heartbeat import Heartbeat, write_heartbeat
from shared.outbox.operations.latency import read_latency
from tests.outbox_relay.commands.running import run, run_json
from tests.rows import add_message, history_rows_read, open_breaker

Connection = psycopg.Connection[tuple[Any, ...]]
ROOT = Path(__file__).parents[3]


def count(stats: dict[str, Any], state: str, queue: str) -> tuple[int, float]:
    [found] = [each for each in stats["live"] if (each["status"], each["queue"]) == (state, queue)]
    return found["messages"], found["oldest_seconds"]


def test_live_messages_are_counted_by_state_and_queue(connection: Connection) -> None:
    for _ in range(3):
        add_message(connection, queue="critical")
    add_message(connection, status="running", claimed_at="2020-01-01T00:00:00Z")

    stats = run_json("stats")

    assert count(stats, "pending", "critical")[0] == 3
    assert count(stats, "running", "default")[0] == 1
    assert count(stats, "running", "default")[1] > 86_400
    assert count(stats, "dead", "critical") == (0, 0.0)


def test_a_message_that_is_due_later_does_not_wait_yet(connection: Connection) -> None:
    add_message(connection, due_at="2100-01-01T00:00:00Z")

    assert count(run_json("stats"), "pending", "default") == (1, 0.0)


def test_lags_are_those_of_the_window(connection: Connection) -> None:
    connection.execute(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, published_at, finished_at)
        SELECT n, 't', '{}', 'critical', 'done', now() - interval '10 s', 0, 1, 10, '[]', now() - interval '20 s',
               now() - interval '8 s', CASE n WHEN 1 THEN now() - interval '1 day' ELSE now() END
          FROM generate_series(1, 4) AS n
        """
    )

    [latency] = run_json("stats", "--window", 60)["latency"]

    assert (latency["queue"], latency["done"]) == ("critical", 3)
    assert (latency["publish_p50"], latency["delivery_p99"]) == pytest.approx((2.0, 20.0))


def test_the_window_of_more_messages_than_are_read_is_that_of_those_that_were_read(connection: Connection) -> None:
    connection.execute(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT n, 't', '{}', 'default', 'done', at, 0, 1, 10, '[]', at, at
          FROM generate_series(1, 200) AS n, LATERAL (SELECT now() - n * interval '500 ms') AS t (at)
        """
    )

    [latency], window_seconds = read_latency(connection, 300, rows_read=20)

    assert latency.done == 20
    assert window_seconds == pytest.approx(10, abs=5)


def test_it_reads_little_of_a_long_history(connection: Connection) -> None:
    connection.execute(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT n, 't', '{}', 'default', 'done', at, 0, 1, 10, '[]', at, at
          FROM generate_series(1, 20000) AS n, LATERAL (SELECT now() - n * interval '1 second') AS t (at)
        """
    )
    connection.execute("ANALYZE outbox_finished")
    before = history_rows_read(connection)

    run_json("stats", "--window", 300)

    assert history_rows_read(connection) - before < 1000


def test_it_names_what_is_away(connection: Connection) -> None:
    open_breaker(connection)

    shown = run("stats").output

    assert ["NONE" in line for line in shown.splitlines() if line.startswith("relays")] == [True]
    assert "AWAY" in shown


def test_a_relay_is_seen_until_it_falls_silent(connection: Connection) -> None:
    write_heartbeat(connection, "here/1")
    write_heartbeat(connection, "there/1")
    seen = run_json("stats")["dependencies"]["relays"]
    connection.execute("UPDATE outbox_relays SET seen_at = now() - interval '1 minute'")

    dependencies = run_json("stats")["dependencies"]

    assert (seen, dependencies["relays"]) == (2, 0)
    assert dependencies["relay_seen_seconds"] == pytest.approx(60, abs=20)


def test_relays_of_yesterday_are_forgotten(connection: Connection) -> None:
    write_heartbeat(connection, "old/1")
    connection.execute("UPDATE outbox_relays SET seen_at = now() - interval '2 days'")

    write_heartbeat(connection, "new/1")

    assert connection.execute("SELECT name FROM outbox_relays").fetchall() == [("new/1",)]


def test_a_relay_without_its_table_goes_on(connection: Connection) -> None:
    connection.execute("DROP TABLE outbox_relays")

    Heartbeat(beat_seconds=5).beat(connection)

    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_watching_draws_again_until_it_is_interrupted(database_url: str) -> None:
    argv = [sys.executable, "-m", "outbox_relay", "stats", "--watch", "--interval", "0.2", "--json"]
    env = {**os.environ, "DATABASE_URL": database_url, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job, which this test run may be, passes on that Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call, looked up before
    ) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(2)]
        watching.send_signal(signal.SIGINT)

        assert [line.startswith('{"live"') for line in lines] == [True, True]
        assert watching.wait(10) == 0
