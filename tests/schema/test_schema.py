"""schema.sql: applied twice without harm, whole rows from plain SQL, and every rule of state is enforced."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.schema import Table

from api import tables
from embedded.errors import EmbeddedError
from embedded.servers.databases import Databases
from embedded.servers.postgres_files import binaries
from tests.conftest import SCHEMA

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as open_connection:
        yield open_connection


def test_a_second_application_changes_nothing_and_keeps_the_rows(
    postgres: Databases, database_url: str, connection: Connection
) -> None:
    connection.execute("INSERT INTO outbox (task, payload, queue) VALUES ('t', '{}', 'default')")
    before = describe(connection)

    postgres.apply_schema(connection.info.dbname, SCHEMA)

    assert describe(connection) == before
    assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (1,)


def test_applied_again_beside_a_long_write_it_gives_up_instead_of_blocking_others(
    connection: Connection, postgres: Databases, database_url: str
) -> None:
    with psycopg.connect(database_url) as long_write:
        long_write.execute("INSERT INTO users VALUES ('ada', 'ada@example.com', 'Ada', '!')")
        began = time.monotonic()

        with pytest.raises(EmbeddedError, match="lock timeout"):
            postgres.apply_schema(connection.info.dbname, SCHEMA)

    assert time.monotonic() - began < 10


def describe(connection: Connection) -> list[tuple[Any, ...]]:
    """Everything that the schema is made of, as the catalogue shows it."""
    return connection.execute(
        """
        SELECT table_name, column_name, data_type, is_nullable,
               coalesce(column_default, 'identity: ' || identity_generation)
          FROM information_schema.columns
         WHERE table_schema = 'public'
        UNION ALL
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace
        UNION ALL
        SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL
        SELECT viewname, 'definition', definition, '', '' FROM pg_views WHERE schemaname = 'public'
        UNION ALL
        SELECT relname, 'options', reloptions::text, '', '' FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
        UNION ALL
        SELECT '', proname, pg_get_functiondef(oid), '', '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT '', typname, format_type(typbasetype, typtypmod), '', '' FROM pg_type
         WHERE typnamespace = 'public'::regnamespace AND typtype = 'd'
        ORDER BY 1, 2, 3
        """
    ).fetchall()


def test_the_distribution_s_psql_applies_it_too(empty_database_url: str) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("no psql on the PATH")

    for _ in range(2):
        subprocess.run([psql, empty_database_url, "-qX", "-v", "ON_ERROR_STOP=1", "-f", SCHEMA], check=True)


def test_a_dump_is_restored_with_its_rules(database_url: str, empty_database_url: str, connection: Connection) -> None:
    connection.execute("INSERT INTO outbox (task, payload) VALUES ('t', '{}')")

    dump = subprocess.run([binaries() / "pg_dump", "-Fc", database_url], capture_output=True, check=True).stdout
    subprocess.run(
        [binaries() / "pg_restore", "-e", "--clean", "--if-exists", "-d", empty_database_url], input=dump, check=True
    )

    with psycopg.connect(empty_database_url, autocommit=True) as restored:
        assert describe(restored) == describe(connection)
        assert restored.execute("SELECT task FROM outbox").fetchall() == [("t",)]


def test_a_dump_of_the_outbox_alone_is_restored_with_its_rules(
    database_url: str, empty_database_url: str, connection: Connection
) -> None:
    command: list[str | Path] = [binaries() / "pg_dump", "-t", "outbox", database_url]
    dump = subprocess.run(command, capture_output=True, check=True).stdout
    subprocess.run([binaries() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", empty_database_url], input=dump, check=True)

    with psycopg.connect(empty_database_url, autocommit=True) as restored:
        assert describe(restored) == [row for row in describe(connection) if row[0] == "outbox"]


def test_a_message_needs_three_columns(connection: Connection) -> None:
    connection.execute("""INSERT INTO outbox (task, payload, queue) VALUES ('t', '{"a": 1}', 'critical')""")

    row = connection.execute(
        """
        SELECT status, due_at <= now(), generation, attempt, max_retries, claim_token, lease_until, failures
          FROM outbox_messages
        """
    ).fetchone()

    assert row == ("pending", True, 0, 0, 10, None, None, [])


def test_a_user_needs_four_columns(connection: Connection) -> None:
    connection.execute("INSERT INTO users (username, email, full_name, hashed_password) VALUES ('a', 'e', 'f', 'h')")

    assert connection.execute("SELECT is_email_verified, created_at <= now() FROM users").fetchone() == (False, True)


def test_an_address_belongs_to_the_account_that_was_verified_whatever_its_case(connection: Connection) -> None:
    insert = "INSERT INTO users (username, email, full_name, hashed_password) VALUES (%s, %s, 'f', 'h')"
    connection.execute(insert, ["a", "Alice@example.com"])
    connection.execute(insert, ["b", "alice@EXAMPLE.com"])
    verify = "UPDATE users SET is_email_verified = true WHERE username = %s"
    connection.execute(verify, ["b"])

    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        connection.execute(verify, ["a"])

    assert caught.value.diag.constraint_name == "users_email_key"


NOBODY = "'00000000-0000-0000-0000-000000000001'"


@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        ("outbox_status_live", {"status": "'done'"}),
        ("outbox_status_live", {"status": "'nonsense'"}),
        ("outbox_queue_known", {"queue": "'urgent'"}),
        ("outbox_task_not_empty", {"task": "''"}),
        ("outbox_generation_not_negative", {"generation": "-1"}),
        ("outbox_attempt_not_negative", {"attempt": "-1"}),
        ("outbox_max_retries_not_negative", {"max_retries": "-1"}),
        ("outbox_failures_is_array", {"failures": "'{}'"}),
        ("outbox_lease_while_published_or_running", {"lease_until": "now()"}),
        (
            "outbox_lease_while_published_or_running",
            {"status": "'published'", "broker_epoch": "'e'", "published_at": "now()"},
        ),
        (
            "outbox_lease_while_published_or_running",
            {"status": "'running'", "claim_token": NOBODY, "claimed_at": "now()", "attempt": "1"},
        ),
        ("outbox_claim_token_while_running", {"claim_token": NOBODY}),
        (
            "outbox_claim_token_while_running",
            {"status": "'running'", "lease_until": "now()", "claimed_at": "now()", "attempt": "1"},
        ),
        (
            "outbox_published_names_its_epoch",
            {"status": "'published'", "lease_until": "now()", "published_at": "now()"},
        ),
        (
            "outbox_published_names_its_epoch",
            {"status": "'published'", "lease_until": "now()", "broker_epoch": "'e'"},
        ),
        (
            "outbox_running_has_claim_time",
            {"status": "'running'", "claim_token": NOBODY, "lease_until": "now()", "attempt": "1"},
        ),
        (
            "outbox_running_has_claim_time",
            {"status": "'running'", "claim_token": NOBODY, "lease_until": "now()", "claimed_at": "now()"},
        ),
        ("outbox_dead_has_reason", {"status": "'dead'"}),
        ("outbox_live_is_not_finished", {"finished_at": "now()"}),
        ("outbox_queue_known", {"queue": "'urgent'", "status": "'nonsense'", "task": "''"}),
    ],
)
def test_an_impossible_state_is_refused(connection: Connection, rule: str, columns: dict[str, str]) -> None:
    row = {"task": "'t'", "payload": "'{}'", **columns}

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute(f"INSERT INTO outbox ({', '.join(row)}) VALUES ({', '.join(row.values())})")

    assert caught.value.diag.constraint_name == rule


@pytest.mark.parametrize(
    ("bound", "columns"),
    [
        ("outbox_payload_size", {"payload": "to_jsonb(repeat('x', 1048576))"}),
        ("outbox_numbers_in_range", {"generation": "1000000000"}),
        ("outbox_numbers_in_range", {"attempt": "1000000000"}),
        ("outbox_numbers_in_range", {"max_retries": "1000000000"}),
        ("outbox_numbers_in_range", {"id": "0"}),
        ("outbox_texts_in_range", {"task": "repeat('x', 201)"}),
        ("outbox_texts_in_range", {"broker_epoch": "repeat('x', 201)"}),
        ("outbox_texts_in_range", {"traceparent": "repeat('x', 201)"}),
        ("outbox_texts_in_range", {"last_error": "repeat('x', 8001)"}),
        ("outbox_due_at_in_range", {"due_at": "'10000-01-01'"}),
        ("outbox_due_at_in_range", {"due_at": "'0001-01-01 00:00:00+00 BC'"}),
        ("outbox_times_in_range", {"created_at": "'infinity'"}),
        ("outbox_times_in_range", {"published_at": "'10000-01-01'"}),
        ("outbox_times_in_range", {"claimed_at": "'-infinity'"}),
        (
            "outbox_times_in_range",
            {
                "lease_until": "'infinity'",
                "status": "'published'",
                "broker_epoch": "'e'",
                "published_at": "now()",
            },
        ),
        ("outbox_failures_are_objects", {"failures": "'[1]'"}),
        ("outbox_failures_are_objects", {"failures": "'[{}, []]'"}),
        ("outbox_failures_are_objects", {"failures": "jsonb_build_array(repeat('x', 1048576))"}),
    ],
)
def test_what_is_out_of_bounds_is_refused(connection: Connection, bound: str, columns: dict[str, str]) -> None:
    row = {"task": "'t'", "payload": "'{}'", **columns}

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute(
            f"INSERT INTO outbox ({', '.join(row)}) OVERRIDING SYSTEM VALUE VALUES ({', '.join(row.values())})"
        )

    assert caught.value.diag.constraint_name == bound


@pytest.mark.parametrize(
    "columns",
    [
        {"due_at": "'infinity'"},
        {"due_at": "'-infinity'"},
        {"due_at": "'0001-01-01 00:00:00+00'"},
        {"failures": """'[{"at": 1, "more": [{}]}]'"""},
        {"payload": "to_jsonb(repeat('x', 2000000))", "status": "'dead'", "last_error": "'too large'"},
        {"generation": "999999999", "attempt": "999999999", "max_retries": "999999999", "id": "9223372036854775807"},
    ],
)
def test_what_is_within_bounds_is_taken(connection: Connection, columns: dict[str, str]) -> None:
    row = {"task": "'t'", "payload": "'{}'", **columns}

    connection.execute(
        f"INSERT INTO outbox ({', '.join(row)}) OVERRIDING SYSTEM VALUE VALUES ({', '.join(row.values())})"
    )


@pytest.mark.parametrize(
    ("constraint", "status", "finished_at", "lease_until"),
    [
        ("outbox_finished_has_finish_time", "done", "NULL", "NULL"),
        ("outbox_finished_status", "dead", "now()", "NULL"),
        ("outbox_finished_holds_no_claim", "discarded", "now()", "now()"),
    ],
)
def test_history_holds_finished_messages_alone(
    connection: Connection, constraint: str, status: str, finished_at: str, lease_until: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute(
            f"""
            INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                         failures, created_at, finished_at, lease_until)
            VALUES (1, 't', '{{}}', 'default', '{status}', now(), 0, 1, 10, '[]', now(), {finished_at}, {lease_until})
            """
        )

    assert caught.value.diag.constraint_name == constraint


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
        ("outbox_pending_idx", "status = 'pending' AND queue = 'default' AND due_at <= now() ORDER BY due_at, id"),
        ("outbox_published_idx", "status = 'published' AND broker_epoch = 'e' AND lease_until < now()"),
        ("outbox_published_idx", "status = 'published' AND (broker_epoch < 'e' OR broker_epoch > 'e')"),
        ("outbox_running_idx", "status = 'running' AND lease_until < now() ORDER BY lease_until"),
        ("outbox_dead_idx", "status = 'dead' ORDER BY id"),
    ],
)
def test_an_index_serves_each_query(connection: Connection, index: str, query: str) -> None:
    connection.execute("SET enable_seqscan = off")

    plan = connection.execute(f"EXPLAIN SELECT id FROM outbox WHERE {query}").fetchall()

    assert any(index in line for (line,) in plan)
