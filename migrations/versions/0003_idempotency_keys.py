"""What came of signups that named themselves with an Idempotency-Key.

A new table that nobody waits for: older APIs do not read the header.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and its index, unless schema.sql made them."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS idempotency_keys (
            key         text        PRIMARY KEY,
            body_hmac   bytea       NOT NULL,
            outcome     jsonb       NOT NULL,
            created_at  timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT idempotency_keys_key_not_empty CHECK (key <> ''),
            CONSTRAINT idempotency_keys_body_hmac_is_sha256 CHECK (length(body_hmac) = 32)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idempotency_keys_age_idx ON idempotency_keys (created_at)")
