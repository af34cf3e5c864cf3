"""The API keeps which forwarding headers come that nothing believes, for `doctor`.

A new table that nobody waits for: an older API does not write it, an older `doctor` does not read it.
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, unless schema.sql made it."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS ignored_headers (
            name     text        PRIMARY KEY,
            seen_at  timestamptz NOT NULL
        )
    """)
