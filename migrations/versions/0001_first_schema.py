"""The first schema, as schema.sql had it before there were migrations.

A database that was made with schema.sql has it already: nothing is done there.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import inspect

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, unless they are there."""
    if inspect(op.get_bind()).has_table("outbox"):
        return
    statements = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(statements)
