"""The first schema: all tables, indexes and the view, from the SQL file beside this one.

A database that schema.sql created has them all, and perhaps later ones: nothing is changed there.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import inspect

revision = "0001_schema"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything, unless it is there: schema.sql creates all of it in one transaction."""
    if inspect(op.get_bind()).has_table("outbox"):
        return
    statements = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(statements)
