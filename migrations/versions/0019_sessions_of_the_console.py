"""Sessions of the console, which end on the server.

A new table that nobody waits for: consoles of the version before keep their sessions in the cookie alone.
"""

from alembic import op

revision = "0019"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, unless schema.sql made it."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS ops_sessions (
            id           bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            secret_hmac  bytea        NOT NULL,
            opened_at    timestamptz  NOT NULL DEFAULT now(),
            ends_at      timestamptz  NOT NULL,
            last_form    text,
            CONSTRAINT ops_sessions_secret_hmac_key UNIQUE (secret_hmac),
            CONSTRAINT ops_sessions_secret_hmac_is_sha256 CHECK (length(secret_hmac) = 32),
            CONSTRAINT ops_sessions_last_form_is_short CHECK (length(last_form) <= 100)
        )
    """)
