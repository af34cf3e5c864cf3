"""Destinations: columns of a message, and a table that replaces the one row of outbox_breaker.

outbox_breaker becomes a view of that table, so that processes of the version before go on working. What they append has
neither a destination nor max_retries, which is complete.
"""

from pathlib import Path

from alembic import op

revision = "0002_destinations"
down_revision = "0001_schema"
branch_labels = None
depends_on = None

_INDEXES = {
    "outbox_dedup_idx": "UNIQUE INDEX CONCURRENTLY outbox_dedup_idx ON outbox (task, dedup_key)"
    " WHERE dedup_key IS NOT NULL AND claimed_at IS NULL",
    "outbox_dead_group_idx": r"""INDEX CONCURRENTLY outbox_dead_group_idx ON outbox (
    hashtextextended(task || ' ' || left(
    substring(last_error COLLATE "C" from
    '^(?:(?:[A-Za-z ]*(?:: |answered |HTTP |status ))?[2-5][0-9][0-9](?:[ -][245]\.[0-9]+\.[0-9]+)?(?:[ ,:;-]|$)|)')
    || regexp_replace(substr(left(last_error COLLATE "C", 1000), 1 + length(substring(last_error COLLATE "C" from
    '^(?:(?:[A-Za-z ]*(?:: |answered |HTTP |status ))?[2-5][0-9][0-9](?:[ -][245]\.[0-9]+\.[0-9]+)?(?:[ ,:;-]|$)|)'))),
    '''[^'' ](?:[^'']*[^'' ])?''|"[^"]*"|<[^<>]*>|[^ ]*[0-9@](?:[^ ]*[^ ,:;.])?|[a-z-]+\.[a-z.-]*[a-z]', '*', 'g'),
    200), 0), id) WHERE status || '' = 'dead'""",
    "outbox_due_idx": "INDEX CONCURRENTLY outbox_due_idx ON outbox (queue, coalesce(destination, ''), due_at, id)"
    " WHERE status = 'pending'",
    "outbox_finished_mail_idx": "INDEX CONCURRENTLY outbox_finished_mail_idx ON outbox_finished (finished_at)"
    " WHERE destination = 'mail' AND status = 'done'",
}


def upgrade() -> None:
    """Add the columns and the table, unless schema.sql has, then replace indexes while everybody reads and writes."""
    if not _finds(
        "SELECT FROM pg_attribute WHERE attrelid = 'outbox'::regclass AND attname = 'destination' AND NOT attisdropped"
    ):
        statements = Path(__file__).with_suffix(".sql").read_text()
        op.get_bind().execution_options(no_parameters=True).exec_driver_sql(statements)
    with op.get_context().autocommit_block():
        # Waiting for others' transactions, these keep nobody from writing.
        op.execute("SET statement_timeout = 0; SET lock_timeout = '10s'")
        for name in ("outbox_destination_form", "outbox_dedup_key_length"):
            op.execute(f"ALTER TABLE outbox VALIDATE CONSTRAINT {name}")
        for name, definition in _INDEXES.items():
            # A build that failed leaves its index behind.
            if _finds(f"SELECT FROM pg_index WHERE indexrelid = to_regclass('{name}') AND NOT indisvalid"):
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            if not _finds(f"SELECT FROM pg_class WHERE oid = to_regclass('{name}')"):
                op.execute(f"CREATE {definition}")
        # outbox_due_idx has taken its place.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS outbox_pending_idx")
        op.execute("SET statement_timeout = '1s'; SET lock_timeout = '500ms'")


def _finds(query: str) -> bool:
    return op.get_bind().exec_driver_sql(query).one_or_none() is not None
