"""The function goes whose rules the type valid_message has.

No step of any version calls it by name; only the `doctor` of the version before calls it missing.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop it and the constraint that calls it, where they are."""
    op.execute("ALTER TABLE outbox DROP CONSTRAINT IF EXISTS outbox_rules_by_function")
    op.execute("DROP FUNCTION IF EXISTS outbox_check_row(outbox)")
