"""The migration to destinations keeps messages, the breaker and grants, and processes of the version before work on."""

from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from shared.database.connections import connect
from tests.rows import add_message, message
from tests.schema.catalogue import schema_of
from tests.schema.migrating import upgrade
from tests.servers.roles import limited_role, with_role

Connection = psycopg.Connection[tuple[Any, ...]]

OPEN: Final = """
    INSERT INTO outbox_breaker AS b (name, opened_at, outages, probe_at, last_error)
    VALUES ('mail', clock_timestamp(), 1, clock_timestamp(), 'a reason')
        ON CONFLICT (name) DO UPDATE
       SET opened_at = coalesce(b.opened_at, excluded.opened_at), outages = b.outages + 1, probe_at = excluded.probe_at
"""
TAKE_PROBE: Final = """
    SELECT name FROM outbox_breaker
     WHERE name = 'mail' AND opened_at IS NOT NULL AND probe_at <= clock_timestamp() FOR UPDATE SKIP LOCKED
"""
CLOSE: Final = """
    UPDATE outbox_breaker SET opened_at = NULL, outages = 0, probe_at = NULL
     WHERE name = 'mail' AND opened_at IS NOT NULL
"""


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[Connection]:
    upgrade(empty_database_url, "0001_schema")
    with connect(empty_database_url, "test") as open_connection:
        yield open_connection


def test_messages_are_kept_and_need_not_name_what_is_new(
    database_url: str, empty_database_url: str, connection: Connection
) -> None:
    before = add_message(connection, "t", status="running")

    upgrade(empty_database_url)

    assert schema_of(empty_database_url) == schema_of(database_url)
    assert [message(connection, id_)["max_retries"] for id_ in (before, add_message(connection, "t"))] == [10, None]


@pytest.mark.parametrize(
    ("statement", "kept"),
    [
        ("SELECT", []),
        ("UPDATE outbox_breaker SET opened_at = now(), probe_at = now(), outages = 3", [("mail", True, 3)]),
        ("UPDATE outbox_breaker SET refusals = '[{}]'", [("mail", False, 0)]),
    ],
)
def test_the_breakers_row_is_kept_where_it_says_something(
    empty_database_url: str, connection: Connection, statement: str, kept: list[tuple[Any, ...]]
) -> None:
    connection.execute(statement.encode())

    upgrade(empty_database_url)

    rows = connection.execute("SELECT name, opened_at IS NOT NULL, outages FROM outbox_destinations").fetchall()
    assert rows == kept


def test_processes_of_the_version_before_share_the_breaker_with_their_grants(
    empty_database_url: str, connection: Connection
) -> None:
    grants = {"outbox_breaker": ("SELECT", "INSERT", "UPDATE")}
    with limited_role(connection, grants) as role:
        upgrade(empty_database_url)
        with psycopg.connect(with_role(empty_database_url, role), autocommit=True) as old:
            for outages in (1, 2):
                old.execute(OPEN)
                assert connection.execute("SELECT name, outages FROM outbox_destinations").fetchall() == [
                    ("mail", outages)
                ]
            assert old.execute(TAKE_PROBE).fetchall() == [("mail",)]
            old.execute(CLOSE)
            assert old.execute("SELECT opened_at, outages FROM outbox_destinations").fetchall() == [(None, 0)]


def test_it_goes_on_where_it_was_interrupted(
    database_url: str, empty_database_url: str, connection: Connection
) -> None:
    upgrade(empty_database_url)
    connection.execute("DROP INDEX outbox_dedup_idx")
    # As a build leaves it that failed.
    add_message(connection, "t", dedup_key="k")
    add_message(connection, "t", dedup_key="k")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY outbox_dedup_idx ON outbox (task, dedup_key)"
            " WHERE dedup_key IS NOT NULL AND claimed_at IS NULL"
        )
    connection.execute("DELETE FROM outbox")
    connection.execute("UPDATE alembic_version SET version_num = '0001_schema'")

    upgrade(empty_database_url)

    assert schema_of(empty_database_url) == schema_of(database_url)
    assert connection.execute("SELECT FROM pg_index WHERE NOT indisvalid").fetchall() == []
