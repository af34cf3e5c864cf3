"""The tables of schema.sql as SQLAlchemy sees them. schema.sql is the truth; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TextClause,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()

_now = text("now()")


def _moment(name: str, *, required: bool = False, default: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=not required, server_default=_now if default else None)


def _moments(name: str) -> Column[object]:
    return Column(name, ARRAY(DateTime(timezone=True)), nullable=False, server_default=text("'{}'"))


def _message_columns(*, live: bool) -> list[Column[object]]:
    """Give the columns that outbox and outbox_finished share; only a live row gets defaults."""

    def default(sql: str) -> TextClause | None:
        return text(sql) if live else None

    return [
        Column("id", BigInteger, *([Identity(always=True)] if live else []), primary_key=True, autoincrement=live),
        Column("task", Text, nullable=False),
        Column("payload", JSONB, nullable=False),
        Column("queue", Text, nullable=False, server_default=default("'default'")),
        Column("status", Text, nullable=False, server_default=default("'pending'")),
        _moment("due_at", required=True, default=live),
        Column("generation", Integer, nullable=False, server_default=default("0")),
        Column("attempt", Integer, nullable=False, server_default=default("0")),
        Column("max_retries", Integer, nullable=False, server_default=default("10")),
        Column("claim_token", Uuid),
        _moment("lease_until"),
        Column("broker_epoch", Text),
        Column("last_error", Text),
        Column("failures", JSONB, nullable=False, server_default=default("'[]'")),
        Column("traceparent", Text),
        _moment("created_at", required=True, default=live),
        _moment("published_at"),
        _moment("claimed_at"),
        _moment("finished_at"),
        Column("uid", Uuid, server_default=default("gen_random_uuid()")),
    ]


users = Table(
    "users",
    metadata,
    Column("username", Text, primary_key=True),
    Column("email", Text, nullable=False),
    Column("full_name", Text, nullable=False),
    Column("hashed_password", Text, nullable=False),
    Column("is_email_verified", Boolean, nullable=False, server_default=text("false")),
    _moment("created_at", required=True, default=True),
    _moment("verified_at"),
    Column("first_mail_id", BigInteger),
    _moment("email_set_at"),
    _moments("corrected_at"),
    _moments("wrong_passwords_at"),
)

verify_emails = Table(
    "verify_emails",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("username", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("message_id", BigInteger, nullable=False),
    _moment("created_at", required=True, default=True),
    _moment("expires_at", required=True),
    _moment("used_at"),
    Column("wrong_passwords", Integer, nullable=False, server_default=text("0")),
)

outbox = Table("outbox", metadata, *_message_columns(live=True))

outbox_finished = Table("outbox_finished", metadata, *_message_columns(live=False))

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("body_hmac", LargeBinary, nullable=False),
    Column("outcome", JSONB, nullable=False),
    _moment("created_at", required=True, default=True),
)

resends = Table(
    "resends",
    metadata,
    Column("email_hmac", LargeBinary, primary_key=True),
    Column("mailed_at", ARRAY(DateTime(timezone=True)), nullable=False),
    _moment("asked_at", required=True, default=True),
)

ops_sessions = Table(
    "ops_sessions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("secret_hmac", LargeBinary, nullable=False),
    _moment("opened_at", required=True, default=True),
    _moment("ends_at", required=True),
    Column("last_form", Text),
)

verification_mails = Table(
    "verification_mails",
    metadata,
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),
    Column("mailbox_hmac", LargeBinary, nullable=False),
    Column("address_hmac", LargeBinary, nullable=False),
    Column("client_hmac", LargeBinary),
    Column("state", Text, nullable=False),
    _moment("due_at", required=True),
)

mail_counts = Table(
    "mail_counts",
    metadata,
    Column("scope", LargeBinary, primary_key=True),
    Column("window_start", DateTime(timezone=True), primary_key=True),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("mails", Integer, nullable=False),
)
