"""Checks the grants of DATABASE_URL's role: to a relay, a missing one looks like an outage."""

from typing import Final

from outbox_relay.doctor.findings import Finding, fault, ok
from shared.database.connections import DbConnection

_CHECK: Final = "grants"

RELAY_NEEDS: Final = {
    "outbox": ("SELECT", "UPDATE", "DELETE"),
    "outbox_finished": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "outbox_destinations": ("SELECT", "UPDATE"),
    "outbox_relays": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "users": ("SELECT", "UPDATE", "DELETE"),
    "verify_emails": ("SELECT",),
    "verification_mails": ("SELECT", "UPDATE", "DELETE"),
    "mail_counts": ("SELECT", "UPDATE", "DELETE"),
}
"""The grants that the relay's statements need. SELECT … FOR UPDATE needs UPDATE."""


def check_usage(connection: DbConnection) -> Finding | None:
    """Return a fault if the role may not use the schema of our tables.

    PostgreSQL skips such a schema, so that the tables would look as if they were missing.
    """
    schema = _closed_schema(connection)
    if schema is None:
        return None
    return fault(
        _CHECK,
        f"this role lacks USAGE on the schema {schema}, where the table outbox is",
        "grant it what docs/roles.sql grants to the relay",
    )


def check_grants(connection: DbConnection) -> Finding:
    """Check each grant. A grant on some columns counts; a missing table is reported by the check of the schema."""
    missing: list[str] = []
    for table, privileges in RELAY_NEEDS.items():
        lacking = [privilege for privilege in privileges if not _may(connection, privilege, table)]
        if lacking:
            missing.append(f"{' and '.join(lacking)} on {table}")
    if missing:
        return fault(
            _CHECK,
            f"this role lacks {', '.join(missing)}: a relay that connects with it cannot work",
            "grant it what docs/roles.sql grants to the relay",
        )
    return ok(_CHECK, "this role may do what a relay does")


def _closed_schema(connection: DbConnection) -> str | None:
    """Return the schema of our tables if the role may not use it and finds them in no other schema."""
    row = connection.execute(
        "SELECT relnamespace::regnamespace::name FROM pg_catalog.pg_class"
        " WHERE relname = 'outbox' AND relkind = 'r' AND to_regclass('outbox') IS NULL"
        " AND NOT has_schema_privilege(relnamespace, 'USAGE')"
    ).fetchone()
    return None if row is None else str(row[0])


def _may(connection: DbConnection, privilege: str, table: str) -> bool:
    # DELETE is granted on whole tables alone.
    function = "has_table_privilege" if privilege == "DELETE" else "has_any_column_privilege"
    row = connection.execute(f"SELECT {function}(to_regclass(%s), %s)", [table, privilege]).fetchone()
    return row is None or row[0] is not False
