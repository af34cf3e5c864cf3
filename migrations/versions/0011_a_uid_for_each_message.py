"""Each message has a random name towards the world, which the Message-ID of its mails carries.

No table is rewritten and no row is touched: a column without a default appears, and the default that it then gets is
for rows to come. A row from before has no uid until its next claim gives it one. Processes of the version before
append and finish messages as ever; what they finish is history without a uid.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COLUMNS = """
    id, task, payload, queue, status, due_at, generation, attempt, max_retries, claim_token, lease_until, broker_epoch,
    last_error, failures, traceparent, created_at, published_at, claimed_at, finished_at, uid
"""


def upgrade() -> None:
    """Add the columns and show them."""
    op.execute("ALTER TABLE outbox ADD COLUMN IF NOT EXISTS uid uuid, ALTER COLUMN uid SET DEFAULT gen_random_uuid()")
    op.execute("ALTER TABLE outbox_finished ADD COLUMN IF NOT EXISTS uid uuid")
    op.execute(
        f"CREATE OR REPLACE VIEW outbox_messages AS SELECT {_COLUMNS} FROM outbox"  # noqa: S608 - our own constant
        f" UNION ALL SELECT {_COLUMNS} FROM outbox_finished"
    )
