"""`python -m outbox_relay` as an operator starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from rq import Queue

from embedded.ports import free_port
from embedded.postgres import PostgresServer
from shared.database import connect
from tests.rows import add_message, message
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.e2e


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "outbox_relay", *options]


def environment(**settings: str) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "RQ_KEY_PREFIX") if name in os.environ}
    return {**inherited, **settings}


def run(*options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options),
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@contextmanager
def started(*options: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A relay that has begun its work."""
    process = subprocess.Popen(
        command(*options), cwd=ROOT, env=environment(**settings), stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "relay_started" in line:
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def test_help_explains_each_option() -> None:
    shown = run("--help").stdout

    assert [option in shown for option in ("--batch-size", "--poll-seconds", "--once")] == [True] * 3


def test_a_missing_setting_stops_it_with_the_variable_s_name() -> None:
    stopped = run()

    assert (stopped.returncode, "DATABASE_URL" in stopped.stderr, "Traceback" in stopped.stderr) == (2, True, False)


def test_a_malformed_setting_stops_it_with_the_variable_s_name(database_url: str) -> None:
    stopped = run(DATABASE_URL=database_url, OUTBOX_BATCH_SIZE="many")

    assert (stopped.returncode, "OUTBOX_BATCH_SIZE" in stopped.stderr) == (2, True)


def test_once_publishes_what_was_due_and_leaves(database_url: str, redis_url: str) -> None:
    with connect(database_url, "test") as connection:
        ids = [add_message(connection) for _ in range(25)]
        later = add_message(connection, due_at="2100-01-01T00:00:00Z")

        ended = run("--once", "--batch-size", "10", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url)

        assert ended.returncode == 0
        assert {message(connection, id_)["status"] for id_ in ids} == {"published"}
        assert message(connection, later)["status"] == "pending"


def test_once_makes_a_round_of_the_reaper(database_url: str, redis_url: str) -> None:
    with connect(database_url, "test") as connection:
        lost = add_message(connection, status="published", broker_epoch="another life")

        run("--once", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url)

        row = message(connection, lost)
    assert (row["status"], row["generation"]) == ("published", 1)
    with Redis.from_url(redis_url) as client:
        assert Queue("default", connection=client).job_ids == [f"outbox-{lost}-g1"]


def test_once_fails_when_redis_is_unreachable(database_url: str) -> None:
    ended = run("--once", DATABASE_URL=database_url, RQ_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")

    assert (ended.returncode, "Redis" in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)


def test_once_fails_when_postgresql_is_unreachable(redis_url: str) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/outbox"

    ended = run("--once", DATABASE_URL=url, RQ_REDIS_URL=redis_url)

    assert (ended.returncode, "PostgreSQL" in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_five_seconds(database_url: str, redis_url: str, sent: signal.Signals) -> None:
    with started("--poll-seconds", "600", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url) as relay:
        relay.send_signal(sent)

        assert relay.wait(5) == 0


def test_a_frozen_postgresql_does_not_keep_it_from_ending(own_postgres: PostgresServer, redis_url: str) -> None:
    url = own_postgres.url("outbox")
    with started("--poll-seconds", "0.05", DATABASE_URL=url, RQ_REDIS_URL=redis_url) as relay:
        with psycopg.connect(url, autocommit=True) as connection:
            backends = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox-relay'"
            ).fetchall()
        for (pid,) in backends:
            os.kill(pid, signal.SIGSTOP)
        relay.send_signal(signal.SIGTERM)
        try:
            assert relay.wait(5) == 0
        finally:
            for (pid,) in backends:
                os.kill(pid, signal.SIGCONT)


def test_a_killed_relay_s_successor_goes_on(database_url: str, redis_url: str) -> None:
    with started("--poll-seconds", "600", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url) as relay:
        relay.kill()
        relay.wait(5)
    with connect(database_url, "test") as connection:
        id_ = add_message(connection)

        with started(DATABASE_URL=database_url, RQ_REDIS_URL=redis_url):
            wait_until(lambda: message(connection, id_)["status"] == "published", 10, "the message to be published")
