"""Checks PostgreSQL: version, settings that the guarantees need, clock, vacuum, and old snapshots."""

import time
from collections.abc import Iterator
from typing import Any, Final

from outbox_relay.doctor.findings import Finding, fault, ok, skipped, warning
from shared.database.connections import DbConnection, UnsuitableDatabaseError, check_encoding, transaction

_VERSIONS: Final = (14, 18)
CLOCK_SECONDS: Final = 5.0
"""Leases depend on PostgreSQL's clock alone. Heartbeats of workers and log lines depend on other clocks."""

DEAD_ROWS: Final = 1_000_000
_DEAD_PER_LIVE: Final = 5
_NEEDED: Final = {
    "fsync": "a crash of the machine may damage everything",
    "full_page_writes": "a crash of the machine may damage everything",
    "autovacuum": "dead rows are never removed",
}


def check_server(connection: DbConnection) -> Iterator[Finding]:
    """Check the version, the encoding, whether it accepts writes, and the durability of a commit."""
    version = connection.info.server_version // 10_000
    if _VERSIONS[0] <= version <= _VERSIONS[1]:
        yield ok("postgresql", f"version {version}")
    else:
        yield fault("postgresql", f"version {version}", f"use one from {_VERSIONS[0]} to {_VERSIONS[1]}")
    try:
        check_encoding(connection)
    except UnsuitableDatabaseError as exc:
        message, _, fix = str(exc).partition(": ")
        yield fault("encoding", message, fix)
    if _value(connection, "SELECT pg_is_in_recovery()"):
        yield fault(
            "postgresql",
            "this is a standby: it takes no writes",
            "name the primary in DATABASE_URL, or all hosts and target_session_attrs=read-write",
        )
    elif _setting(connection, "default_transaction_read_only") == "on":
        yield fault(
            "postgresql",
            "it takes no writes: default_transaction_read_only is on",
            "set it to off, for the server, the database and the role",
        )
    for name, harm in _NEEDED.items():
        if _setting(connection, name) != "on":
            yield fault("postgresql settings", f"{name} is off: {harm}", f"ALTER SYSTEM SET {name} = on, and reload")
    if _setting(connection, "synchronous_commit") == "off":
        yield fault(
            "postgresql settings",
            "synchronous_commit is off: a signup that was answered with 201 may be lost after a crash",
            "set it to on, for the server, the database and the role",
        )
    yield _check_free_connections(connection)


def check_jit(connection: DbConnection) -> Finding:
    """Check whether PostgreSQL would compile our statements, in a transaction like the relay's."""
    with transaction(connection):
        is_on = _setting(connection, "jit") == "on"
    if is_on:
        return warning(
            "jit",
            "PostgreSQL may compile our statements, which takes a hundred times as long as running them",
            "make sure that no pooler removes jit = off from our sessions",
        )
    return ok("jit", "off for our statements")


def takes_writes(connection: DbConnection) -> bool:
    """Return whether PostgreSQL accepts writes."""
    question = "SELECT NOT pg_is_in_recovery() AND NOT current_setting('default_transaction_read_only')::boolean"
    return bool(_value(connection, question))


def check_vacuum(connection: DbConnection, dead_rows: int = DEAD_ROWS) -> Finding:
    """Check the number of dead rows of the table outbox.

    Args:
        connection: to the service's database.
        dead_rows: the number from which they are a fault, if they are also many times the live rows.

    """
    row = connection.execute(
        """
        SELECT n_live_tup, n_dead_tup, pg_table_size(relid),
               EXISTS (SELECT FROM unnest(reloptions) AS option
                        WHERE option IN ('autovacuum_enabled=false', 'autovacuum_enabled=off'))
          FROM pg_stat_user_tables JOIN pg_class AS c ON c.oid = relid
         WHERE relid = 'outbox'::regclass
        """
    ).fetchone()
    assert row is not None  # noqa: S101 - the schema was compared before
    live, dead, size, switched_off = row
    message = f"outbox: {live} live and {dead} dead rows in {size / 2**20:.1f} MiB"
    if switched_off:
        return fault("vacuum", "autovacuum is switched off for outbox", "ALTER TABLE outbox RESET (autovacuum_enabled)")
    if dead > dead_rows and dead > live * _DEAD_PER_LIVE:
        return fault(
            "vacuum", message, "end the transaction that holds an old snapshot (see snapshots), then VACUUM outbox"
        )
    return ok("vacuum", message)


def check_snapshots(connection: DbConnection, longest_seconds: float) -> Finding:
    """Check the oldest transaction: dead rows that are younger than it cannot be removed.

    PostgreSQL hides the age of other roles' transactions from a role.
    """
    row = connection.execute(
        """
        SELECT what, extract(epoch FROM clock_timestamp() - since)::float8 AS seconds
          FROM (SELECT format('session %s (%s, %s)', pid, application_name, state), xact_start
                  FROM pg_stat_activity
                 WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
                UNION ALL
                SELECT format('prepared transaction %s', quote_literal(gid)), prepared FROM pg_prepared_xacts
               ) AS open (what, since)
         WHERE since IS NOT NULL
         ORDER BY since
         LIMIT 1
        """
    ).fetchone()
    if row is None or row[1] < longest_seconds:
        if hidden := _hidden_transactions(connection):
            return skipped(
                "snapshots",
                f"{hidden} of other roles are open, and PostgreSQL hides from this role for how long:"
                " grant it pg_read_all_stats (docs/roles.md)",
            )
        return ok("snapshots", "none is open" if row is None else f"the oldest is {row[1]:.0f} s old")
    what, seconds = row
    return fault(
        "snapshots",
        f"{what} holds a transaction open for {seconds:.0f} s: dead rows cannot be removed",
        "end it: pg_terminate_backend(pid), or ROLLBACK PREPARED",
    )


def check_clock(connection: DbConnection) -> Finding:
    """Compare this machine's clock with PostgreSQL's."""
    before = time.time()
    theirs = float(_value(connection, "SELECT extract(epoch FROM clock_timestamp())"))
    return compare_clocks("PostgreSQL", theirs - (before + time.time()) / 2)


def compare_clocks(of: str, ahead_seconds: float) -> Finding:
    """Return the finding about another machine's clock.

    Args:
        of: the name of the other machine.
        ahead_seconds: by how much its clock is ahead of ours.

    """
    if abs(ahead_seconds) <= CLOCK_SECONDS:
        return ok("clocks", f"{of} and this machine agree")
    where = "ahead of" if ahead_seconds > 0 else "behind"
    return fault(
        "clocks",
        f"the clock of {of} is {abs(ahead_seconds):.0f} s {where} this machine's",
        "synchronise both with NTP: otherwise workers look dead, and mails have a wrong date",
    )


def _hidden_transactions(connection: DbConnection) -> int:
    """Return the number of open transactions whose age is hidden.

    Processes of the server itself, such as autovacuum, have no role and are not counted.
    """
    return int(
        _value(
            connection,
            """
            SELECT count(*) FROM pg_stat_activity
             WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start IS NULL
               AND usesysid IS NOT NULL AND NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
            """,
        )
    )


def _check_free_connections(connection: DbConnection) -> Finding:
    limit = int(_setting(connection, "max_connections"))
    # pg_stat_activity hides from a role which sessions of others are clients'.
    used = int(_value(connection, "SELECT sum(numbackends) FROM pg_stat_database"))
    message = f"{used} of {limit} connections are in use"
    if used > limit * 0.9:
        return warning(
            "connections", message, "raise max_connections, or put a PgBouncer in between (docs/operations/scaling.md)"
        )
    return ok("connections", message)


def _setting(connection: DbConnection, name: str) -> str:
    return str(_value(connection, "SELECT current_setting(%s)", name))


def _value(connection: DbConnection, query: str, *values: object) -> Any:  # noqa: ANN401 - one cell of any type
    row = connection.execute(query, values).fetchone()
    assert row is not None  # noqa: S101 - each of these queries has one row
    return row[0]
