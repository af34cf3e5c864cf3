"""Which verification mails were asked for, by HMACs of mailbox, address and client.

A new table that nobody waits for: older APIs write no rows, and what they mail is not counted.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and its indexes, unless schema.sql made them."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS verification_mails (
            message_id    bigint      PRIMARY KEY,
            mailbox_hmac  bytea       NOT NULL,
            address_hmac  bytea       NOT NULL,
            client_hmac   bytea,
            state         text        NOT NULL,
            due_at        timestamptz NOT NULL,
            CONSTRAINT verification_mails_state_known CHECK (state IN ('prompt', 'waiting', 'daily', 'discarded'))
        )
    """)
    op.execute(
        "CREATE INDEX IF NOT EXISTS verification_mails_mailbox_idx ON verification_mails (mailbox_hmac, due_at)"
        " WHERE state <> 'discarded'"
    )
    op.execute(
        "CREATE INDEX IF NOT EXISTS verification_mails_waiting_idx ON verification_mails (due_at)"
        " WHERE state IN ('waiting', 'daily')"
    )
    op.execute(
        "CREATE INDEX IF NOT EXISTS verification_mails_due_idx ON verification_mails (due_at)"
        " WHERE state <> 'discarded'"
    )
    op.execute(
        "CREATE INDEX IF NOT EXISTS verification_mails_discarded_idx ON verification_mails (due_at)"
        " WHERE state = 'discarded'"
    )
