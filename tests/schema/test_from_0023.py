"""A database of a former revision is refused with the command that brings it to 0001_schema, and that command works."""

import re
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from alembic.util import CommandError
from psycopg.conninfo import conninfo_to_dict

from embedded.errors import EmbeddedError
from embedded.servers.databases import Databases
from embedded.servers.postgres_files import binaries
from outbox_relay.doctor.schema_drift import check_schema
from shared.database.connections import connect
from tests.programs.processes import ROOT
from tests.rows import add_message, add_user
from tests.schema.catalogue import schema_of
from tests.schema.migrating import alembic, upgrade

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA_0023: Final = Path(__file__).parent / "schema_0023.sql"
SCRIPT: Final = ROOT / "migrations" / "from_0023.sql"
COMMAND: Final = 'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f migrations/from_0023.sql'
TABLES: Final = ("users", "outbox_messages", "verify_emails", "verification_mails", "outbox_breaker")


@pytest.fixture
def first_schema(postgres: Databases) -> Iterator[list[tuple[Any, ...]]]:
    """The schema of 0001_schema, where the script ends."""
    name = f"first_schema_{secrets.token_hex(4)}"
    url = postgres.create_database(name)
    upgrade(url, "0001_schema")
    yield schema_of(url)
    postgres.drop_database(name)


@pytest.fixture
def connection(postgres: Databases, empty_database_url: str) -> Iterator[Connection]:
    """A database of the last former revision, with a row of each kind."""
    postgres.apply_schema(name_of(empty_database_url), SCHEMA_0023)
    with connect(empty_database_url, "test") as open_connection:
        add_user(open_connection)
        add_user(open_connection, "verified", is_email_verified=True, verified_at="now")
        ids = [
            add_message(open_connection, "t", status=status, due_at="infinity")
            for status in ("pending", "published", "running", "dead")
        ]
        for status in ("done", "discarded"):
            open_connection.execute(
                """
                INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                             failures, created_at, finished_at)
                SELECT nextval('outbox_id_seq'), task, payload, queue, %s, due_at, 1, 1, 10, '[]', now(), now()
                  FROM outbox WHERE id = %s
                """,
                [status, ids[0]],
            )
        open_connection.execute(
            """
            INSERT INTO verify_emails (username, email, message_id, expires_at)
            VALUES ('alice', 'alice@example.com', %s, now())
            """,
            [ids[2]],
        )
        open_connection.execute(
            "INSERT INTO verification_mails VALUES (%s, '\\x01', '\\x02', '\\x03', 'prompt', now())", [ids[0]]
        )
        yield open_connection


def name_of(database_url: str) -> str:
    return str(conninfo_to_dict(database_url)["dbname"])


def rows_of(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    # As text: Python has no infinity of time.
    rows = {name: connection.execute(f"SELECT t::text FROM {name} AS t ORDER BY 1").fetchall() for name in TABLES}
    assert all(rows.values())
    return rows


def revisions_of(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT version_num FROM alembic_version").fetchall()


def test_it_is_refused_with_a_command_that_brings_it_to_the_schema_and_keeps_its_rows(
    database_url: str, empty_database_url: str, connection: Connection, first_schema: list[tuple[Any, ...]]
) -> None:
    rows = rows_of(connection)

    refused = alembic(empty_database_url, "upgrade", "head")

    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert f"The database has the schema of the former revision 0023. Bring it to 0001_schema: {COMMAND}\n" in said
    line = said.partition("0001_schema: ")[2].splitlines()[0]
    environment = {"PATH": f"{binaries()}:/usr/bin:/bin", "DATABASE_URL": empty_database_url}
    done = subprocess.run(["/bin/sh", "-euc", line], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert schema_of(empty_database_url) == first_schema
    assert rows_of(connection) == rows
    upgrade(empty_database_url)
    assert schema_of(empty_database_url) == schema_of(database_url)
    with connect(database_url, "test") as by_schema_sql:
        assert check_schema(connection) == check_schema(by_schema_sql)


@pytest.mark.parametrize("transactions", [0, 1, 2, 3])
def test_the_rules_hold_at_each_moment_and_it_may_be_run_again_from_there(
    postgres: Databases,
    empty_database_url: str,
    connection: Connection,
    first_schema: list[tuple[Any, ...]],
    transactions: int,
) -> None:
    parts = SCRIPT.read_text().split("COMMIT;\n")
    assert len(parts) == 4
    for part in parts[:transactions]:
        connection.execute(part)
        connection.execute("COMMIT")

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        add_message(connection, "t", queue="urgent")
    assert caught.value.diag.constraint_name == "outbox_queue_known"
    postgres.apply_schema(name_of(empty_database_url), SCRIPT)

    assert schema_of(empty_database_url) == first_schema
    assert revisions_of(connection) == [("0001_schema",)]


def test_a_database_that_schema_sql_made_is_refused_and_brought_there_too(
    postgres: Databases, empty_database_url: str, connection: Connection, first_schema: list[tuple[Any, ...]]
) -> None:
    connection.execute("DROP TABLE alembic_version")

    with pytest.raises(CommandError, match=re.escape(COMMAND)):
        upgrade(empty_database_url)
    postgres.apply_schema(name_of(empty_database_url), SCRIPT)

    assert schema_of(empty_database_url) == first_schema
    assert revisions_of(connection) == [("0001_schema",)]


def test_an_earlier_revision_goes_to_0023_first(
    postgres: Databases, empty_database_url: str, connection: Connection
) -> None:
    connection.execute("UPDATE alembic_version SET version_num = '0017'")
    before = schema_of(empty_database_url)

    with pytest.raises(CommandError, match=r"former revision 0017\. Bring it to 0023 with the last commit"):
        upgrade(empty_database_url)
    with pytest.raises(
        EmbeddedError, match=r"the database is at revision 0017, not at 0023: see docs/operations/migrations.md"
    ):
        postgres.apply_schema(name_of(empty_database_url), SCRIPT)

    assert schema_of(empty_database_url) == before


def test_an_earlier_schema_sql_goes_to_0023_first(
    postgres: Databases, empty_database_url: str, connection: Connection
) -> None:
    connection.execute("DROP TABLE alembic_version, mail_counts")
    before = schema_of(empty_database_url)

    with pytest.raises(
        EmbeddedError, match=r"the tables are older than revision 0023: see docs/operations/migrations.md"
    ):
        postgres.apply_schema(name_of(empty_database_url), SCRIPT)

    assert schema_of(empty_database_url) == before


def test_beside_a_forgotten_transaction_it_gives_up_and_blocks_others_briefly(
    postgres: Databases, empty_database_url: str, connection: Connection
) -> None:
    before = schema_of(empty_database_url)
    waits: list[float] = []
    stop = threading.Event()

    def write_until() -> None:
        with connect(empty_database_url, "signups") as signups:
            while not stop.is_set():
                began = time.monotonic()
                add_message(signups, "t")
                waits.append(time.monotonic() - began)

    writing = threading.Thread(target=write_until)
    with connect(empty_database_url, "forgotten") as forgotten, forgotten.transaction():
        forgotten.execute("SELECT count(*) FROM outbox")
        writing.start()
        try:
            with pytest.raises(EmbeddedError, match="lock timeout"):
                postgres.apply_schema(name_of(empty_database_url), SCRIPT)
        finally:
            stop.set()
            writing.join(20)

    assert 1 < max(waits) < 5
    assert schema_of(empty_database_url) == before
    assert revisions_of(connection) == [("0023",)]
