"""Prove that the rows from before the migration 0008 keep to its constraint."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Read every row, for as long as that takes: nobody is kept from writing meanwhile."""
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute("ALTER TABLE outbox VALIDATE CONSTRAINT outbox_rules")
