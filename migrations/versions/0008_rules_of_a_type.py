"""The rules of a message belong to a type, which costs a signup half of what the function of 0005 does.

The rules are the same, so that processes of every version go on with either. From now on every new row keeps to both;
0009 proves the old rows, and only then does the function go, in 0010.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import inspect

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


_FOUND = """
    SELECT EXISTS (
        SELECT FROM pg_type JOIN pg_class ON pg_class.reltype = typbasetype
         WHERE pg_class.oid = 'outbox'::regclass AND typname = 'valid_message'
    )
"""


def upgrade() -> None:
    """Make the type, and the constraint that casts each row to it, unless schema.sql did: its rules may be later."""
    connection = op.get_bind()
    if not connection.exec_driver_sql(_FOUND).scalar_one():
        connection.exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())
    constraints = {check["name"]: check["sqltext"] for check in inspect(connection).get_check_constraints("outbox")}
    former = constraints.get("outbox_rules", "")
    if "valid_message" in former:
        return
    if former:
        op.execute("ALTER TABLE outbox RENAME CONSTRAINT outbox_rules TO outbox_rules_by_function")
    op.execute(
        "ALTER TABLE outbox ADD CONSTRAINT outbox_rules"
        " CHECK ((outbox.*)::valid_message IS DISTINCT FROM NULL) NOT VALID"
    )
