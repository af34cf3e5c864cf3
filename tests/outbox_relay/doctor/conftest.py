"""Fixtures: a healthy installation on a PostgreSQL that keeps what it acknowledges."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from embedded.mail.catcher import MailCatcher
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from outbox_relay.loop.heartbeat import write_heartbeat
from shared.database.connections import connect
from tests.conftest import SCHEMA, StartPostgres
from tests.outbox_relay.doctor.installation import Installation, show_worker
from tests.programs.processes import worker_settings
from tests.reused_database import ReusedDatabase


@pytest.fixture(scope="package")
def durable_postgres(server_folder: Path, start_postgres: StartPostgres) -> Iterator[PostgresServer]:
    """A server that keeps what it acknowledges: the session's has fsync off, which is a fault."""
    server = start_postgres(server_folder / "durable", fsync="on")
    yield server
    server.remove()


@pytest.fixture(scope="package")
def durable_database(durable_postgres: PostgresServer) -> Iterator[ReusedDatabase]:
    """Its database; faults that are planted in the schema use it up."""
    durable_postgres.create_database("template")
    durable_postgres.apply_schema("template", SCHEMA)
    database = ReusedDatabase(durable_postgres, "template")
    yield database
    database.drop()


@pytest.fixture
def healthy(
    durable_database: ReusedDatabase, own_redis: RedisServer, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    url = durable_database.give()
    for variable, value in worker_settings(url, own_redis.url, mailbox.smtp_url).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("TRUSTED_PROXIES", "1")
    with connect(url, "test") as connection, closing(own_redis.client()) as client:
        write_heartbeat(connection, "here/1")
        show_worker(client)
        yield Installation(connection, client, monkeypatch)
    durable_database.take_back()
