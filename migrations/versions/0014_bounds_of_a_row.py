"""Bounds of a message's row: what no process of ours could read, count on or send.

They are constraints of the table itself. From now on every new row keeps to them; 0015 looks for rows that were written
between 0013 and here, and proves all of them.
"""

from alembic import op
from sqlalchemy import inspect

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_CONSTRAINTS = {
    "outbox_payload_size": "status = 'dead' OR pg_column_size(payload) <= 1048576",
    "outbox_numbers_in_range": "id > 0 AND greatest(generation, attempt, max_retries) < 1000000000",
    "outbox_texts_in_range": "greatest(octet_length(task), octet_length(broker_epoch), octet_length(traceparent))"
    " <= 200 AND octet_length(last_error) <= 8000",
    "outbox_due_at_in_range": "(due_at >= '0001-01-01 00:00:00+00' AND due_at <= '9999-12-31 00:00:00+00')"
    " OR NOT isfinite(due_at)",
    "outbox_times_in_range": "least(created_at, published_at, claimed_at, lease_until) >= '0001-01-01 00:00:00+00'"
    " AND greatest(created_at, published_at, claimed_at, lease_until) <= '9999-12-31 00:00:00+00'",
    "outbox_failures_are_objects": "failures = '[]' OR pg_column_size(failures) <= 1048576"
    """ AND NOT jsonb_path_exists(failures, 'strict $[*] ? (@.type() != "object")', '{}', true)""",
}


def upgrade() -> None:
    """Add those that are missing: schema.sql may have made them."""
    there = {check["name"] for check in inspect(op.get_bind()).get_check_constraints("outbox")}
    added = [
        f"ADD CONSTRAINT {name} CHECK ({_CONSTRAINTS[name]}) NOT VALID" for name in _CONSTRAINTS if name not in there
    ]
    if added:
        op.get_bind().exec_driver_sql(f"ALTER TABLE outbox {', '.join(added)}")
