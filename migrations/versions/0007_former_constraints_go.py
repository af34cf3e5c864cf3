"""The constraints go whose rules the function outbox_check_row has.

No step of any version asks for them by name; only the `doctor` of the version before calls them missing.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_FORMER = (
    "outbox_task_not_empty",
    "outbox_queue_known",
    "outbox_status_live",
    "outbox_generation_not_negative",
    "outbox_attempt_not_negative",
    "outbox_max_retries_not_negative",
    "outbox_failures_is_array",
    "outbox_lease_while_published_or_running",
    "outbox_claim_token_while_running",
    "outbox_published_names_its_epoch",
    "outbox_running_has_claim_time",
    "outbox_dead_has_reason",
    "outbox_live_is_not_finished",
)


def upgrade() -> None:
    """Drop them, where they are."""
    op.execute("ALTER TABLE outbox " + ", ".join(f"DROP CONSTRAINT IF EXISTS {name}" for name in _FORMER))
