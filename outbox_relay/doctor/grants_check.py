"""Whether the role of DATABASE_URL may do what a relay does: what it may not do looks to it like an outage."""

from typing import Final

from outbox_relay.doctor.findings import Finding, fault, ok
from outbox_relay.statements import DbConnection

_CHECK: Final = "grants"

RELAY_NEEDS: Final = {
    "outbox": ("SELECT", "UPDATE"),
    "outbox_finished": ("SELECT", "UPDATE", "DELETE"),
    "outbox_breaker": ("SELECT", "UPDATE"),
    "outbox_relays": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""What the statements of outbox_relay ask for. UPDATE also stands for SELECT … FOR UPDATE."""


def check_grants(connection: DbConnection) -> Finding:
    """Look for each grant; one on some columns counts, and a table that is missing is the schema's fault."""
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


def _may(connection: DbConnection, privilege: str, table: str) -> bool:
    # DELETE is granted on whole tables alone.
    function = "has_table_privilege" if privilege == "DELETE" else "has_any_column_privilege"
    row = connection.execute(f"SELECT {function}(to_regclass(%s), %s)", [table, privilege]).fetchone()
    return row is None or row[0] is not False
