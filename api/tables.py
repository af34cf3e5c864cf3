"""SQLAlchemy's view of the API's own tables. schema.sql is the truth; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.outbox.tables import metadata, moment


def _moments(name: str) -> Column[object]:
    return Column(name, ARRAY(DateTime(timezone=True)), nullable=False, server_default=text("'{}'"))


users = Table(
    "users",
    metadata,
    Column("username", Text, primary_key=True),
    Column("email", Text, nullable=False),
    Column("full_name", Text, nullable=False),
    Column("hashed_password", Text, nullable=False),
    Column("is_email_verified", Boolean, nullable=False, server_default=text("false")),
    moment("created_at", required=True, default=True),
    moment("verified_at"),
    Column("first_mail_id", BigInteger),
    moment("email_set_at"),
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
    moment("created_at", required=True, default=True),
    moment("expires_at", required=True),
    moment("used_at"),
    Column("wrong_passwords", Integer, nullable=False, server_default=text("0")),
)


idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("body_hmac", LargeBinary, nullable=False),
    Column("outcome", JSONB, nullable=False),
    moment("created_at", required=True, default=True),
)


resends = Table(
    "resends",
    metadata,
    Column("email_hmac", LargeBinary, primary_key=True),
    Column("mailed_at", ARRAY(DateTime(timezone=True)), nullable=False),
    moment("asked_at", required=True, default=True),
)


ops_sessions = Table(
    "ops_sessions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("secret_hmac", LargeBinary, nullable=False),
    moment("opened_at", required=True, default=True),
    moment("ends_at", required=True),
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
    moment("due_at", required=True),
)


mail_counts = Table(
    "mail_counts",
    metadata,
    Column("scope", LargeBinary, primary_key=True),
    Column("window_start", DateTime(timezone=True), primary_key=True),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("mails", Integer, nullable=False),
)


# Only the columns id, events and fan_out_until may be read here: docs/roles.sql grants no others.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), nullable=False),
    moment("created_at", required=True, default=True),
    moment("enabled_at", required=True, default=True),
    moment("fan_out_until"),
    moment("removed_at"),
)
