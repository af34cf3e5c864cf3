"""schema.sql: applied twice without harm, whole rows from plain SQL, and what the mapping and the queries expect."""

import shutil
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.schema import Table

from api import tables
from embedded.errors import EmbeddedError
from embedded.servers.databases import Databases
from embedded.servers.postgres_files import binaries
from shared.database.connections import DbConnection
from tests.conftest import SCHEMA
from tests.schema.catalogue import describe


def test_a_second_application_changes_nothing_and_keeps_the_rows(postgres: Databases, connection: DbConnection) -> None:
    connection.execute("INSERT INTO outbox (task, payload, queue) VALUES ('t', '{}', 'default')")
    before = describe(connection)

    postgres.apply_schema(connection.info.dbname, SCHEMA)

    assert describe(connection) == before
    assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (1,)


def test_applied_again_beside_a_long_write_it_gives_up_instead_of_blocking_others(
    connection: DbConnection, postgres: Databases, database_url: str
) -> None:
    with psycopg.connect(database_url) as long_write:
        long_write.execute("INSERT INTO users VALUES ('ada', 'ada@example.com', 'Ada', '!')")
        began = time.monotonic()

        with pytest.raises(EmbeddedError, match="lock timeout"):
            postgres.apply_schema(connection.info.dbname, SCHEMA)

    assert time.monotonic() - began < 10


def test_the_distribution_s_psql_applies_it_too(empty_database_url: str) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("no psql on the PATH")

    for _ in range(2):
        subprocess.run([psql, empty_database_url, "-qX", "-v", "ON_ERROR_STOP=1", "-f", SCHEMA], check=True)


def test_a_dump_is_restored_with_its_rules(
    database_url: str, empty_database_url: str, connection: DbConnection
) -> None:
    connection.execute("INSERT INTO outbox (task, payload) VALUES ('t', '{}')")

    dump = subprocess.run([binaries() / "pg_dump", "-Fc", database_url], capture_output=True, check=True).stdout
    subprocess.run(
        [binaries() / "pg_restore", "-e", "--clean", "--if-exists", "-d", empty_database_url], input=dump, check=True
    )

    with psycopg.connect(empty_database_url, autocommit=True) as restored:
        assert describe(restored) == describe(connection)
        assert restored.execute("SELECT task FROM outbox").fetchall() == [("t",)]


def test_a_dump_of_the_outbox_alone_is_restored_with_its_rules(
    database_url: str, empty_database_url: str, connection: DbConnection
) -> None:
    command: list[str | Path] = [binaries() / "pg_dump", "-t", "outbox", database_url]
    dump = subprocess.run(command, capture_output=True, check=True).stdout
    subprocess.run([binaries() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", empty_database_url], input=dump, check=True)

    with psycopg.connect(empty_database_url, autocommit=True) as restored:
        assert describe(restored) == [row for row in describe(connection) if row[0] == "outbox"]


def test_a_message_needs_three_columns(connection: DbConnection) -> None:
    connection.execute("""INSERT INTO outbox (task, payload, queue) VALUES ('t', '{"a": 1}', 'critical')""")

    row = connection.execute(
        """
        SELECT status, due_at <= now(), generation, attempt, max_retries, claim_token, lease_until, failures
          FROM outbox_messages
        """
    ).fetchone()

    assert row == ("pending", True, 0, 0, None, None, None, [])


def test_a_user_needs_four_columns(connection: DbConnection) -> None:
    connection.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('a', 'e', 'f', 'h')")

    assert connection.execute("SELECT is_email_verified, created_at <= now() FROM users").fetchone() == (False, True)


@pytest.mark.parametrize("table", tables.users.metadata.sorted_tables, ids=lambda table: table.name)
def test_the_mapping_is_what_the_schema_says(database_url: str, table: Table) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    columns = inspect(engine).get_columns(table.name)
    primary_key = inspect(engine).get_pk_constraint(table.name)["constrained_columns"]
    engine.dispose()

    in_database = [
        (column["name"], column["type"].compile(dialect=engine.dialect), column["nullable"], plain(column["default"]))
        for column in columns
    ]
    mapped = [
        (
            column.name,
            column.type.compile(dialect=engine.dialect),
            column.nullable,
            plain(getattr(column.server_default, "arg", None)),
        )
        for column in table.columns
    ]
    assert mapped == in_database
    assert [column.name for column in table.primary_key] == primary_key


def plain(default: object) -> str | None:
    """A default without the casts that the catalogue adds."""
    return None if default is None else str(default).partition("::")[0]


@pytest.mark.parametrize(
    ("index", "query"),
    [
        (
            "outbox_due_idx",
            "status = 'pending' AND queue = 'default' AND coalesce(destination, '') = 'mail' ORDER BY due_at, id",
        ),
        ("outbox_published_idx", "status = 'published' AND broker_epoch = 'e' AND lease_until < now()"),
        ("outbox_published_idx", "status = 'published' AND (broker_epoch < 'e' OR broker_epoch > 'e')"),
        ("outbox_running_idx", "status = 'running' AND lease_until < now() ORDER BY lease_until"),
        ("outbox_dead_idx", "status = 'dead' ORDER BY id"),
    ],
)
def test_an_index_serves_each_query(connection: DbConnection, index: str, query: str) -> None:
    plan = connection.execute(f"EXPLAIN SELECT id FROM outbox WHERE {query}").fetchall()

    assert any(index in line for (line,) in plan)
