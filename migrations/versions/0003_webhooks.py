"""Webhooks: the tables of endpoints and of their secrets. The API reads the former at each signup."""

from pathlib import Path

from alembic import op

revision = "0003_webhooks"
down_revision = "0002_destinations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, unless schema.sql has."""
    statements = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(statements)
