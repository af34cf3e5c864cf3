"""The servers are Debian's, as `make world` requires, and an idle relay costs them next to nothing."""

import os
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis

from shared.database.connections import connect
from tests.programs.preloading import Preloaded
from tests.programs.processes import started
from tests.waiting import wait_until
from tests.world import packages

IDLE_SECONDS = 8.0


def test_postgresql_is_debians_with_jit_and_foreign_settings(database_url: str, pytestconfig: pytest.Config) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), current_setting('jit'), pg_jit_available(),"
            " current_schemas(false)"
        ).fetchone()

    assert row is not None
    assert "Debian" in row[0]
    assert row[1:] == ("on", True, [pytestconfig.getoption("--postgres-schema")])


def test_redis_is_debians(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        info = client.info("server")

    assert info["executable"] == str(packages.REDIS.resolve().with_name("redis-server"))


def test_nothing_was_started_by_installing_the_packages() -> None:
    listening = {
        connection.laddr.port for connection in psutil.net_connections("tcp") if connection.status == psutil.CONN_LISTEN
    }

    taken = listening & {25, 5432, 6379}
    if taken and not os.environ.get("CI"):
        pytest.skip(f"servers that are not ours listen on {sorted(taken)}")
    assert taken == set()


def test_an_idle_relay_takes_a_hundredth_of_a_core_with_its_backends(
    origin: Preloaded, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": database_url, "RQ_REDIS_URL": redis_url}
    argv = [sys.executable, "-m", "outbox_relay"]
    with (
        started(argv, settings, tmp_path / "relay.log", origin) as relay,
        connect(database_url, "test") as connection,
    ):
        wait_until(lambda: len(backends(connection)) >= 2, 20, "the relay to be connected")
        wait_until(lambda: connection.execute("SELECT 1 FROM outbox_relays").fetchone(), 20, "the relay to work")
        processes = [psutil.Process(pid) for pid in (relay.pid, *backends(connection))]
        before, began = processor_seconds(processes), time.monotonic()
        time.sleep(IDLE_SECONDS)  # what is measured is that nothing happens
        used, seconds = processor_seconds(processes) - before, time.monotonic() - began

    assert used / seconds < 0.01


def backends(connection: psycopg.Connection[tuple[object, ...]]) -> list[int]:
    """Return the processes that serve others in this database."""
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    return [int(str(pid)) for (pid,) in rows]


def processor_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
