"""Prove that the rows from before the migration 0014 keep to its bounds."""

from alembic import context, op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_CONSTRAINTS = (
    "outbox_payload_size",
    "outbox_numbers_in_range",
    "outbox_texts_in_range",
    "outbox_due_at_in_range",
    "outbox_times_in_range",
    "outbox_failures_are_objects",
)


def upgrade() -> None:
    """Bring in what came between, and read every row: nobody is kept from writing meanwhile."""
    with op.get_context().autocommit_block():
        context.script.get_revision("0013").module.bring_rows_into_bounds(op.get_bind())
    op.execute("SET LOCAL statement_timeout = 0")
    for name in _CONSTRAINTS:
        op.execute(f"ALTER TABLE outbox VALIDATE CONSTRAINT {name}")
