"""`doctor` with PostgreSQL: standby, clock, open transactions, connections, dead rows, schemas."""

import os
from datetime import UTC, datetime
from urllib.parse import quote

import psycopg
import pytest
import time_machine

from embedded.servers.postgres import PostgresServer
from outbox_relay.doctor.findings import Severity
from outbox_relay.doctor.postgresql_checks import check_jit, check_server, check_snapshots, check_vacuum
from shared.database.connections import connect
from tests.addresses import with_parameter
from tests.outbox_relay.commands.running import run
from tests.outbox_relay.doctor.installation import Connection, Installation, faults, schema_of
from tests.servers.roles import limited_role, with_role


def test_a_standby_is_named_and_no_relay_is_blamed(healthy: Installation, own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    (own_postgres.data / "standby.signal").touch()
    own_postgres.start()
    healthy.set("DATABASE_URL", own_postgres.url("outbox"))

    found = faults()

    assert (next(iter(found)), "relay" in found) == ("postgresql", False)
    assert "this is a standby" in found["postgresql"]


def test_a_clock_that_went_wrong_is_named(healthy: Installation) -> None:
    with time_machine.travel(datetime.now(UTC).timestamp() + 120):
        found = faults()

    assert list(found) == ["clocks"]
    assert "behind this machine's" in found["clocks"]


def test_a_transaction_that_stays_open_is_named(healthy: Installation, durable_postgres: PostgresServer) -> None:
    url = durable_postgres.url(healthy.connection.info.dbname)
    with connect(url, "forgotten-shell") as forgotten, forgotten.transaction():
        forgotten.execute("SELECT pg_current_xact_id()")

        ended = run("doctor", "--longest-transaction", 0)

    assert (ended.exit_code, "forgotten-shell" in ended.output) == (1, True), ended.output


def test_a_transaction_whose_age_is_hidden_from_this_role_is_not_called_absent(
    healthy: Installation, durable_postgres: PostgresServer
) -> None:
    url = durable_postgres.url(healthy.connection.info.dbname)
    with (
        limited_role(healthy.connection, {}) as role,
        connect(with_role(url, role), "doctor") as limited,
        connect(url, "forgotten-shell") as forgotten,
    ):
        with forgotten.transaction():
            forgotten.execute("SELECT pg_current_xact_id()")
            hidden = check_snapshots(limited, 0)
            healthy.sql(f"GRANT pg_read_all_stats TO {role}")
            seen = check_snapshots(limited, 0)
            healthy.sql(f"REVOKE pg_read_all_stats FROM {role}")
        none = check_snapshots(limited, 0)

    assert (hidden.severity, "pg_read_all_stats" in hidden.message) == (Severity.SKIPPED, True)
    assert (seen.severity, "forgotten-shell" in seen.message) == (Severity.FAULT, True)
    assert (none.severity, none.message) == (Severity.OK, "none is open")


def test_connections_of_other_roles_are_counted(healthy: Installation, durable_postgres: PostgresServer) -> None:
    url = durable_postgres.url(healthy.connection.info.dbname)
    with (
        limited_role(healthy.connection, {}) as role,
        connect(with_role(url, role), "doctor") as limited,
        connect(url, "another"),
    ):
        [message] = [each.message for each in check_server(limited) if each.check == "connections"]

    assert int(message.split()[0]) >= 3, message  # the test's, the limited one, and another


def test_jit_is_off_in_our_sessions_and_named_where_it_is_not(database_url: str) -> None:
    with connect(database_url, "test") as ours, psycopg.connect(database_url, autocommit=True) as theirs:
        theirs.execute("SET jit = on")

        assert (check_jit(ours).severity, check_jit(theirs).severity) == (Severity.OK, Severity.WARNING)


def test_dead_rows_that_pile_up_are_named(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("INSERT INTO outbox (task, payload) SELECT 't', '{}' FROM generate_series(1, 500)")
        connection.execute("DELETE FROM outbox")
    connection.execute("SELECT pg_stat_force_next_flush()")

    few, many = check_vacuum(connection, dead_rows=100_000), check_vacuum(connection, dead_rows=100)

    assert (few.severity, many.severity) == (Severity.OK, Severity.FAULT)


@pytest.mark.parametrize("schema", ["outbox", "Our Schema"])
def test_a_schema_of_one_s_own_is_no_fault(healthy: Installation, schema: str) -> None:
    healthy.sql(f'ALTER SCHEMA {schema_of(healthy)} RENAME TO "{schema}"')
    options = quote(f'-csearch_path="{schema}"'.replace(" ", "\\ "))
    healthy.set("DATABASE_URL", with_parameter(os.environ["DATABASE_URL"], f"options={options}"))

    assert faults() == {}
