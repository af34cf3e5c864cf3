"""An account keeps its verification, the corrections of its address, and wrong passwords; a link keeps the latter too.

No table is rewritten: the defaults are constant. Processes of the version before leave the new columns as they are.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, unless schema.sql made them."""
    op.execute(
        "ALTER TABLE users ADD COLUMN IF NOT EXISTS verified_at timestamptz,"
        " ADD COLUMN IF NOT EXISTS first_mail_id bigint,"
        " ADD COLUMN IF NOT EXISTS email_set_at timestamptz,"
        " ADD COLUMN IF NOT EXISTS corrected_at timestamptz[] NOT NULL DEFAULT '{}',"
        " ADD COLUMN IF NOT EXISTS wrong_passwords_at timestamptz[] NOT NULL DEFAULT '{}'"
    )
    op.execute("ALTER TABLE verify_emails ADD COLUMN IF NOT EXISTS wrong_passwords integer NOT NULL DEFAULT 0")
