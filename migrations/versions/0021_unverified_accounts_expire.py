"""Two indexes for the expiry of unverified accounts: the oldest of them, and the mails that they have ahead.

Both are built while everybody reads and writes. Processes of the version before do not notice them.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_INDEXES = {
    "users_unverified_age_idx": "users (created_at, username) WHERE NOT is_email_verified",
    "outbox_account_idx": (
        "outbox (left(payload ->> 'username', 64) COLLATE \"C\") WHERE starts_with(task, 'task:send_')"
    ),
}


def upgrade() -> None:
    """Build the indexes, unless schema.sql has made them."""
    with op.get_context().autocommit_block():
        # Waiting for others' transactions, the build keeps nobody from writing.
        op.execute("SET statement_timeout = 0; SET lock_timeout = '10s'")
        for name, definition in _INDEXES.items():
            # A build that failed leaves its index behind.
            if _finds(f"SELECT FROM pg_index WHERE indexrelid = to_regclass('{name}') AND NOT indisvalid"):
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            if not _finds(f"SELECT FROM pg_class WHERE oid = to_regclass('{name}')"):
                op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        op.execute("SET statement_timeout = '1s'; SET lock_timeout = '500ms'")


def _finds(query: str) -> bool:
    return op.get_bind().exec_driver_sql(query).one_or_none() is not None
