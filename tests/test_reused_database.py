"""The database that tests use in turn shows no test what another one wrote."""

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest

from embedded.servers.databases import Databases
from tests.reused_database import ReusedDatabase
from tests.rows import add_message, add_user

CHANGES: list[LiteralString] = [
    "CREATE TABLE notes (id int)",
    "ALTER TABLE outbox RENAME TO elsewhere",
    "ALTER TABLE users ADD CONSTRAINT refuses_all CHECK (false) NOT VALID",
    "ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL",
    "ALTER TABLE outbox SET (autovacuum_enabled = false)",
    "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "GRANT INSERT (task) ON outbox TO pg_monitor",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 1', current_database()); END $$",
    "ANALYZE outbox_destinations",
    "VACUUM users",
    "INSERT INTO outbox (task, payload) VALUES ('task:any', '{}'); ANALYZE outbox",
    "ALTER TABLE users RENAME CONSTRAINT users_email_not_empty TO users_email_given",
    "ALTER TABLE users ALTER COLUMN is_email_verified SET DEFAULT true",
    "ALTER TABLE verify_emails DISABLE TRIGGER ALL",
    "CREATE DOMAIN word AS text",
    "CREATE SCHEMA other",
    "ALTER SEQUENCE outbox_id_seq INCREMENT 2",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO pg_monitor",
    (
        "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW outbox_messages AS '"
        " || pg_get_viewdef('outbox_messages'::regclass); END $$"
    ),
    "UPDATE pg_index SET indisvalid = false WHERE indrelid = 'outbox'::regclass",
    "DROP EXTENSION plpgsql",
    "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO pg_monitor', current_database()); END $$",
    "DROP TABLE outbox_relays",
]
END_OTHERS: LiteralString = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture
def reused(postgres: Databases, database_template: str) -> Iterator[ReusedDatabase]:
    database = ReusedDatabase(postgres, database_template)
    yield database
    database.drop()


def test_what_was_written_and_counted_is_gone(reused: ReusedDatabase) -> None:
    url = reused.give()
    with psycopg.connect(url) as connection:
        add_user(connection)
        assert add_message(connection) == 1
        connection.execute("INSERT INTO outbox_relays (name, seen_at) VALUES ('a relay', now())")
        connection.execute("INSERT INTO outbox_destinations (name, outages) VALUES ('mail', 7)")
        connection.commit()
        add_message(connection)
        connection.rollback()
    reused.take_back()

    assert reused.give() == url
    with psycopg.connect(url) as connection:
        [(counted,)] = connection.execute("SELECT sum(seq_scan + n_tup_ins + n_tup_upd) FROM pg_stat_user_tables")
        [(written,)] = connection.execute(
            "SELECT array_agg(relname) FROM pg_class WHERE oid >= 16384 AND relkind = 'r' AND pg_relation_size(oid) > 0"
        )
        assert (counted, written) == (0, None)
        add_user(connection)
        assert add_message(connection) == 1


def test_a_connection_that_a_test_left_is_ended(reused: ReusedDatabase) -> None:
    with psycopg.connect(reused.give()) as connection:
        connection.execute("LOCK TABLE outbox")
        reused.take_back()

        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            connection.execute("SELECT 1")


@pytest.mark.parametrize("change", [*CHANGES, END_OTHERS])
def test_a_database_that_was_changed_is_not_given_again(reused: ReusedDatabase, change: LiteralString) -> None:
    url = reused.give()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(change)
    reused.take_back()

    assert reused.give() != url
