"""How many verification mails are due in an hour, to one domain or to all.

A new table that nobody waits for: it stays empty where no limit is set.
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and its index, unless schema.sql made them."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS mail_counts (
            scope         bytea       NOT NULL,
            window_start  timestamptz NOT NULL,
            slot          smallint    NOT NULL,
            mails         integer     NOT NULL,
            CONSTRAINT mail_counts_pkey PRIMARY KEY (scope, window_start, slot)
        ) WITH (fillfactor = 50)
    """)
    op.execute("CREATE INDEX IF NOT EXISTS mail_counts_window_idx ON mail_counts (window_start)")
