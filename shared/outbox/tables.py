"""SQLAlchemy's view of the outbox's tables. schema.sql is the truth; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    TextClause,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

_now = text("now()")


def moment(name: str, *, required: bool = False, default: bool = False) -> Column[object]:
    """Return a column for a time, with now() as its default if it has one."""
    return Column(name, DateTime(timezone=True), nullable=not required, server_default=_now if default else None)


def _message_columns(*, live: bool) -> list[Column[object]]:
    """Return the columns that outbox and outbox_finished share; only outbox has defaults."""

    def default(sql: str) -> TextClause | None:
        return text(sql) if live else None

    return [
        Column("id", BigInteger, *([Identity(always=True)] if live else []), primary_key=True, autoincrement=live),
        Column("task", Text, nullable=False),
        Column("payload", JSONB, nullable=False),
        Column("queue", Text, nullable=False, server_default=default("'default'")),
        Column("status", Text, nullable=False, server_default=default("'pending'")),
        moment("due_at", required=True, default=live),
        Column("generation", Integer, nullable=False, server_default=default("0")),
        Column("attempt", Integer, nullable=False, server_default=default("0")),
        Column("max_retries", Integer),
        Column("claim_token", Uuid),
        moment("lease_until"),
        Column("broker_epoch", Text),
        Column("last_error", Text),
        Column("failures", JSONB, nullable=False, server_default=default("'[]'")),
        Column("traceparent", Text),
        moment("created_at", required=True, default=live),
        moment("published_at"),
        moment("claimed_at"),
        moment("finished_at"),
        Column("uid", Uuid, server_default=default("gen_random_uuid()")),
        Column("destination", Text(collation="C")),
        Column("dedup_key", Text),
    ]


outbox = Table("outbox", metadata, *_message_columns(live=True))

outbox_finished = Table("outbox_finished", metadata, *_message_columns(live=False))
