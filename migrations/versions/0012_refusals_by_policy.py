"""The breaker's row says which refusals by policy there were, and whether they are an outage.

Workers of the version before leave the new columns as they are.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; the default is constant."""
    op.execute(
        "ALTER TABLE outbox_breaker ADD COLUMN IF NOT EXISTS policy_code text,"
        " ADD COLUMN IF NOT EXISTS refusals jsonb NOT NULL DEFAULT '[]',"
        " ADD COLUMN IF NOT EXISTS accepted_at timestamptz"
    )
