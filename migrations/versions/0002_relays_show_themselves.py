"""Relays show themselves in a row of outbox_relays.

A new table that nobody waits for: older relays do not write it, older APIs do not read it.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, unless schema.sql made it."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS outbox_relays (
            name        text        PRIMARY KEY,
            started_at  timestamptz NOT NULL DEFAULT now(),
            seen_at     timestamptz NOT NULL
        )
    """)
