"""An address belongs to the account that was verified with it; before that, several accounts may name it.

The new indexes are built beside the old one, while everybody reads and writes. Processes of the version before work on;
the signups that they take may name the address of another account then, and stay unverified.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_NEW_KEY = "users_verified_email_key"
_IS_PARTIAL = "SELECT FROM pg_index WHERE indexrelid = to_regclass('users_email_key') AND indpred IS NOT NULL"
_IS_INVALID = "SELECT FROM pg_index WHERE indexrelid = to_regclass('{name}') AND NOT indisvalid"


def upgrade() -> None:
    """Build the indexes, and let the new one take the old one's name, unless schema.sql has done so."""
    with op.get_context().autocommit_block():
        # Waiting for others' transactions, the build keeps nobody from writing.
        op.execute("SET statement_timeout = 0; SET lock_timeout = '10s'")
        if not _finds(_IS_PARTIAL):
            _build(
                _NEW_KEY, f"CREATE UNIQUE INDEX CONCURRENTLY {_NEW_KEY} ON users (lower(email)) WHERE is_email_verified"
            )
        _build(
            "users_unverified_email_idx",
            "CREATE INDEX CONCURRENTLY users_unverified_email_idx ON users (lower(email), created_at)"
            " WHERE NOT is_email_verified",
        )
        op.execute("SET statement_timeout = '1s'; SET lock_timeout = '500ms'")
    if _finds(_IS_PARTIAL):
        op.execute(f"DROP INDEX IF EXISTS {_NEW_KEY}")
    else:
        op.execute("DROP INDEX users_email_key")
        op.execute(f"ALTER INDEX {_NEW_KEY} RENAME TO users_email_key")


def _build(name: str, statement: str) -> None:
    # A build that failed leaves its index behind.
    if _finds(_IS_INVALID.format(name=name)):
        op.execute(f"DROP INDEX CONCURRENTLY {name}")
    if not _finds(f"SELECT FROM pg_class WHERE oid = to_regclass('{name}')"):
        op.execute(statement)


def _finds(query: str) -> bool:
    return op.get_bind().exec_driver_sql(query).one_or_none() is not None
