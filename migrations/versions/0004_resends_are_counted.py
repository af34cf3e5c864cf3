"""How often a mail was asked for again, by the HMAC of the address.

A new table that nobody waits for: older APIs count nothing.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and its index, unless schema.sql made them."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS resends (
            email_hmac  bytea         PRIMARY KEY,
            mailed_at   timestamptz[] NOT NULL,
            asked_at    timestamptz   NOT NULL DEFAULT now(),
            CONSTRAINT resends_email_hmac_is_sha256 CHECK (length(email_hmac) = 32),
            CONSTRAINT resends_five_mails_a_day CHECK (cardinality(mailed_at) BETWEEN 1 AND 5)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS resends_age_idx ON resends (asked_at)")
