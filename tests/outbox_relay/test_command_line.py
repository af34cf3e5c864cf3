"""`python -m outbox_relay` as an operator starts it."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import psycopg
import pytest
from redis import Redis
from rq import Queue

from embedded.programs.ports import free_port
from embedded.programs.program import Program
from embedded.servers.postgres import PostgresServer
from shared.database.connections import connect
from shared.rq_format.ids import job_id
from tests.programs import processes
from tests.programs.preloading import Preloaded
from tests.rows import add_message, message
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


class Relay:
    """The command, forked from a process that has imported what it needs; the test of its help starts a new one."""

    def __init__(self, origin: Preloaded, folder: Path) -> None:
        self._origin = origin
        self._folder = folder

    def run(self, *options: str, **settings: str) -> CompletedProcess[str]:
        """Run one that ends by itself."""
        return processes.run(command(*options), settings, self._log_file(), self._origin)

    @contextmanager
    def started(self, *options: str, **settings: str) -> Iterator[Program]:
        """Start one, and wait until it has begun its work."""
        with processes.started(command(*options), settings, self._log_file(), self._origin) as program:
            wait_until(lambda: "relay.started" in program.command.log_file.read_text(), 20, "the relay to start")
            yield program

    def _log_file(self) -> Path:
        return self._folder / f"relay-{secrets.token_hex(4)}.log"


def command(*options: str) -> list[str | Path]:
    return [sys.executable, "-m", "outbox_relay", *options]


@pytest.fixture
def relay(origin: Preloaded, tmp_path: Path) -> Relay:
    return Relay(origin, tmp_path)


def test_help_explains_each_option(tmp_path: Path) -> None:
    shown = processes.run(command("--help"), {}, tmp_path / "help.log").stdout

    assert [option in shown for option in ("--batch-size", "--poll-seconds", "--once")] == [True] * 3


def test_a_missing_setting_stops_it_with_the_variable_s_name(relay: Relay) -> None:
    stopped = relay.run()

    assert (stopped.returncode, "DATABASE_URL" in stopped.stdout, "Traceback" in stopped.stdout) == (2, True, False)


def test_a_malformed_setting_stops_it_with_the_variable_s_name(relay: Relay, database_url: str) -> None:
    stopped = relay.run(DATABASE_URL=database_url, OUTBOX_BATCH_SIZE="many")

    assert (stopped.returncode, "OUTBOX_BATCH_SIZE" in stopped.stdout) == (2, True)


def test_once_publishes_what_was_due_and_leaves(relay: Relay, database_url: str, redis_url: str) -> None:
    with connect(database_url, "test") as connection:
        ids = [add_message(connection) for _ in range(25)]
        later = add_message(connection, due_at="2100-01-01T00:00:00Z")

        ended = relay.run("--once", "--batch-size", "10", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url)

        assert ended.returncode == 0
        assert {message(connection, id_)["status"] for id_ in ids} == {"published"}
        assert message(connection, later)["status"] == "pending"


def test_once_makes_a_round_of_the_reaper(relay: Relay, database_url: str, redis_url: str) -> None:
    with connect(database_url, "test") as connection:
        lost = add_message(connection, status="published", broker_epoch="another life")

        relay.run("--once", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url)

        row = message(connection, lost)
    assert (row["status"], row["generation"]) == ("published", 1)
    with Redis.from_url(redis_url) as client:
        assert Queue("default", connection=client).job_ids == [job_id(lost, 1)]


def test_once_fails_when_redis_is_unreachable(relay: Relay, database_url: str) -> None:
    ended = relay.run("--once", DATABASE_URL=database_url, RQ_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")

    assert (ended.returncode, "Redis" in ended.stdout, "Traceback" in ended.stdout) == (1, True, False)


def test_once_fails_when_a_queue_takes_nothing(relay: Relay, database_url: str, redis_url: str) -> None:
    with connect(database_url, "test") as connection, Redis.from_url(redis_url) as client:
        stays = add_message(connection, queue="critical")
        leaves = add_message(connection, queue="default")
        client.set("rq:queue:critical", "no list")

        ended = relay.run("--once", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url)

        assert [message(connection, id_)["status"] for id_ in (stays, leaves)] == ["pending", "published"]
    assert (ended.returncode, "Redis holds no list at rq:queue:critical" in ended.stdout) == (1, True)


def test_once_fails_when_redis_has_a_name_that_is_none(relay: Relay, database_url: str) -> None:
    ended = relay.run("--once", DATABASE_URL=database_url, RQ_REDIS_URL="redis://a..b:6379/0")

    assert (ended.returncode, "Redis" in ended.stdout, "Traceback" in ended.stdout) == (1, True, False)


def test_once_fails_when_postgresql_is_unreachable(relay: Relay, redis_url: str) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/outbox"

    ended = relay.run("--once", DATABASE_URL=url, RQ_REDIS_URL=redis_url)

    assert (ended.returncode, "PostgreSQL" in ended.stdout, "Traceback" in ended.stdout) == (1, True, False)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_five_seconds(
    relay: Relay, database_url: str, redis_url: str, sent: signal.Signals
) -> None:
    with relay.started("--poll-seconds", "600", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url) as running:
        os.kill(running.pid, sent)

        assert running.wait(5) == 0


def test_a_frozen_postgresql_does_not_keep_it_from_ending(
    relay: Relay, own_postgres: PostgresServer, redis_url: str
) -> None:
    url = own_postgres.url("outbox")
    with relay.started("--poll-seconds", "0.05", DATABASE_URL=url, RQ_REDIS_URL=redis_url) as running:
        with psycopg.connect(url, autocommit=True) as connection:
            backends = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox-relay'"
            ).fetchall()
        for (pid,) in backends:
            os.kill(pid, signal.SIGSTOP)
        os.kill(running.pid, signal.SIGTERM)
        try:
            assert running.wait(5) == 0
        finally:
            for (pid,) in backends:
                os.kill(pid, signal.SIGCONT)


def test_a_killed_relay_s_successor_goes_on(relay: Relay, database_url: str, redis_url: str) -> None:
    with relay.started("--poll-seconds", "600", DATABASE_URL=database_url, RQ_REDIS_URL=redis_url) as running:
        running.kill()
        running.wait(5)
    with connect(database_url, "test") as connection:
        id_ = add_message(connection)

        with relay.started(DATABASE_URL=database_url, RQ_REDIS_URL=redis_url):
            wait_until(lambda: message(connection, id_)["status"] == "published", 10, "the message to be published")
