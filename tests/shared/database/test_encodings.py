"""A database whose encoding cannot hold every name is refused by name, by every process that would use it."""

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from embedded.servers.databases import Databases
from tests.conftest import SCHEMA
from tests.outbox_relay.commands.running import run
from tests.programs.api_service import api_service
from tests.programs.preloading import Preloaded
from tests.programs.processes import OUTBOX_WORKER, worker_module, worker_settings
from tests.programs.processes import run as run_process
from tests.rows import add_message, message


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def narrow_url(
    encoding: str, postgres: Databases, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    name = f"outbox_test_{secrets.token_hex(8)}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            SQL("CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0").format(
                Identifier(name), Literal(encoding)
            )
        )
    if schema := pytestconfig.getoption("--postgres-schema"):
        with psycopg.connect(postgres.url(name), autocommit=True) as connection:
            connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    postgres.apply_schema(name, SCHEMA)
    monkeypatch.setenv("DATABASE_URL", postgres.url(name))
    yield postgres.url(name)
    postgres.drop_database(name)


def words(encoding: str) -> str:
    return f"this database has the encoding {encoding}, which cannot hold every name"


def test_the_api_is_not_ready_and_takes_no_signup(narrow_url: str, encoding: str) -> None:
    with api_service(narrow_url) as api:
        ready = api.client().get("/readyz")

        assert (ready.status_code, ready.json is not None) == (503, True)
        assert words(encoding) in str(ready.json)
        assert api.sign_up().status_code == 503
        with psycopg.connect(narrow_url) as connection:
            assert connection.execute("SELECT count(*) FROM users").fetchone() == (0,)


def test_relay_and_doctor_say_so(
    narrow_url: str,
    encoding: str,
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
    origin: Preloaded,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("RQ_REDIS_URL", redis_url)
    settings = {"DATABASE_URL": narrow_url, "RQ_REDIS_URL": redis_url}

    relay = run_process([sys.executable, "-m", "outbox_relay", "--once"], settings, tmp_path / "relay.log", origin)
    doctor, command = run("doctor"), run("list")

    assert (relay.returncode, words(encoding) in relay.stdout) == (2, True), relay.stdout
    assert (doctor.exit_code, words(encoding) in " ".join(doctor.output.split())) == (1, True), doctor.output
    assert (command.exit_code, words(encoding) in command.output) == (1, True), command.output


@pytest.mark.parametrize("encoding", ["SQL_ASCII"], indirect=True)
def test_an_outbox_worker_does_not_start(
    narrow_url: str, encoding: str, redis_url: str, origin: Preloaded, tmp_path: Path
) -> None:
    settings = {**worker_settings(narrow_url, redis_url, "smtp://127.0.0.1:1"), "RQ_WORKER_CLASS": OUTBOX_WORKER}

    ended = run_process(worker_module("--burst"), settings, tmp_path / "worker.log", origin)

    assert (ended.returncode, words(encoding) in ended.stdout) == (2, True), ended.stdout


@pytest.mark.parametrize("encoding", ["SQL_ASCII"], indirect=True)
def test_the_stock_class_releases_the_message(narrow_url: str, encoding: str, redis_url: str, tmp_path: Path) -> None:
    with psycopg.connect(narrow_url, autocommit=True, client_encoding="UTF8") as connection:
        connection.execute("SET datestyle = 'ISO'")
        id_ = add_message(connection, status="published")
        job = [sys.executable, "-c", f"from consumer.jobs import run_message; run_message({id_})"]

        run_process(job, worker_settings(narrow_url, redis_url, "smtp://127.0.0.1:1"), tmp_path / "job.log")

        row = message(connection, id_)
    assert (row["status"], row["attempt"], words(encoding) in row["last_error"]) == ("pending", 0, True)
