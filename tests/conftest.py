"""Real servers for the tests. What the environment says about servers is ignored; TEST_* variables opt in.

- `database_url`, `redis_url`: a database with the schema that is as new, an empty Redis; on the session's servers.
- `own_postgres`, `own_redis`: servers that a test may kill, stop, restart and flush.
- `mailbox`: an empty mail catcher without a fault.
"""

import gc
import importlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Protocol

import psycopg
import pytest
from psycopg import sql
from redis import Redis

from embedded.errors import MissingBinaryError
from embedded.mail.catcher import MailCatcher
from embedded.servers.databases import Databases
from embedded.servers.postgres import PostgresServer
from embedded.servers.postgres_files import binaries
from embedded.servers.redis import RedisServer, redis_binary
from shared.database.connections import DbConnection, connect, keep_plans
from tests.environment import forget_settings, keep_files_in_memory
from tests.programs.preloading import API_LIBRARIES, SERVICE, Preloaded, preloaded
from tests.reused_database import ReusedDatabase
from tests.servers.given_servers import GivenPostgres

SCHEMA = Path(__file__).parents[1] / "schema.sql"

# A lost power plug is not among the faults; whatever is killed, the operating system keeps what was written.
POSTGRES_SETTINGS = {"fsync": "off", "max_connections": "200"}

# Scenes of crashes (tests/crash) run in parallel, each with one of the numbered databases.
REDIS_SETTINGS = {"databases": "32"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that write pictures of the pages and that `make world` sets servers up with."""
    parser.addoption("--screenshots", action="store_true", help="write docs/images again (tests/browser)")
    parser.addoption(
        "--postgres-setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set this in every PostgreSQL that the tests start; may be repeated",
    )
    parser.addoption(
        "--postgres-schema",
        metavar="NAME",
        help="let each of their databases have this schema, in place of `public` on the search_path",
    )


def pytest_configure() -> None:
    """Forget the environment's servers and settings before any test module is imported."""
    keep_files_in_memory()
    forget_settings()


def pytest_collection() -> None:
    """Collect without the garbage collector: it searches modules and items again and again, and finds nothing."""
    # Its plugin imports it in each session at the latest at the end, and it searches for who holds what it is given.
    importlib.import_module("hypothesis")
    gc.disable()


def pytest_collection_finish() -> None:
    """Start the garbage collector, for what the tests leave. What was collected lives as long as the process."""
    gc.enable()
    gc.freeze()


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account may enter: pytest's own temporary folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="outbox-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


class StartPostgres(Protocol):
    """Starts a PostgreSQL in a folder, set up as the command line says, and with these settings beside."""

    def __call__(self, folder: Path, **settings: str) -> PostgresServer: ...


@pytest.fixture(scope="session")
def start_postgres(pytestconfig: pytest.Config) -> StartPostgres:
    """What starts the PostgreSQL servers of the tests; the caller removes them."""
    given = dict(setting.split("=", 1) for setting in pytestconfig.getoption("--postgres-setting"))
    schema: str | None = pytestconfig.getoption("--postgres-schema")
    if schema is not None:
        given["search_path"] = schema

    def start(folder: Path, **settings: str) -> PostgresServer:
        server = PostgresServer(folder, settings={**POSTGRES_SETTINGS, **given, **settings})
        server.start()
        if schema is not None:
            # Every other database is a copy of it.
            with psycopg.connect(server.url("template1"), autocommit=True) as connection:
                name = sql.Identifier(schema)
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
                # As everybody may use `public`.
                connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO public").format(name))
        return server

    return start


@pytest.fixture(scope="session")
def postgres(server_folder: Path, start_postgres: StartPostgres) -> Iterator[Databases]:
    """The session's PostgreSQL: a server of its own, or the one of TEST_DATABASE_URL."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield GivenPostgres(url)
        return
    _need_postgres()
    server = start_postgres(server_folder / "postgres")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def database_template(postgres: Databases) -> Iterator[str]:
    """The name of a database with the schema, to which nobody is connected."""
    name = f"outbox_template_{secrets.token_hex(8)}"
    postgres.create_database(name)
    postgres.apply_schema(name, SCHEMA)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def empty_database_url(postgres: Databases) -> Iterator[str]:
    """The address of a fresh database without the schema."""
    name = f"outbox_test_{secrets.token_hex(8)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def reused_database(postgres: Databases, database_template: str) -> Iterator[ReusedDatabase]:
    """The database that tests use in turn."""
    database = ReusedDatabase(postgres, database_template)
    yield database
    database.drop()


@pytest.fixture
def database_url(reused_database: ReusedDatabase) -> Iterator[str]:
    """The address of a database with the schema that is as new."""
    yield reused_database.give()
    reused_database.take_back()


@pytest.fixture
def own_postgres(server_folder: Path, start_postgres: StartPostgres) -> Iterator[PostgresServer]:
    """A running server of the test's own with a database `outbox` that has the schema."""
    _need_postgres()
    server = start_postgres(server_folder / f"postgres-{secrets.token_hex(4)}")
    try:
        server.create_database("outbox")
        server.apply_schema("outbox", SCHEMA)
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def redis_server(server_folder: Path) -> Iterator[RedisServer]:
    """The session's own Redis."""
    _need_redis()
    server = RedisServer(server_folder / "redis", append_only=False, settings=REDIS_SETTINGS)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Redis without a key of ours: the session's, or the one of TEST_REDIS_URL."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
        _delete_own_keys(url)
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    yield server.url


@pytest.fixture
def emptiable_redis_url(redis_server: RedisServer) -> str:
    """The address of the session's own Redis, never of a given one: for tests that empty the server."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis(server_folder: Path) -> Iterator[RedisServer]:
    """A running append-only server of the test's own."""
    _need_redis()
    server = RedisServer(server_folder / f"redis-{secrets.token_hex(4)}")
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def origin(server_folder: Path) -> Iterator[Preloaded]:
    """The process that relays and workers are forked from in tests that start many."""
    with preloaded(SERVICE, server_folder / "origin") as process:
        yield process


@pytest.fixture(scope="session")
def api_origin(server_folder: Path) -> Iterator[Preloaded]:
    """The process that gunicorn is forked from."""
    with preloaded(API_LIBRARIES, server_folder / "api-origin") as process:
        yield process


@pytest.fixture(scope="session")
def mail_catcher(server_folder: Path) -> Iterator[MailCatcher]:
    """The session's mail server, in this process."""
    catcher = MailCatcher(server_folder / "mail")
    catcher.start()
    yield catcher
    catcher.stop()


@pytest.fixture
def mailbox(mail_catcher: MailCatcher) -> Iterator[MailCatcher]:
    """The mail server, empty and without a fault."""
    mail_catcher.set_fault(None)
    mail_catcher.clear()
    yield mail_catcher
    mail_catcher.set_fault(None)


def _need_postgres() -> None:
    try:
        binaries()
    except MissingBinaryError as missing:
        absent(str(missing))


def _need_redis() -> None:
    try:
        redis_binary()
    except MissingBinaryError as missing:
        absent(str(missing))


def absent(missing: str) -> NoReturn:
    """Skip on a laptop; where the suite is the judge, a skipped suite would look like a green one."""
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def _delete_own_keys(url: str) -> None:
    prefix = os.environ["RQ_KEY_PREFIX"]
    with Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            client.delete(key)


@pytest.fixture
def connection(database_url: str) -> Iterator[DbConnection]:
    """A connection like those of relay and consumer."""
    with connect(database_url, "test") as open_connection:
        keep_plans(open_connection)
        yield open_connection
