"""The statements that read a link and use it.

Lock order: the address (an advisory lock), the account's row, the link's row. All statements compare addresses ignoring
case, as the unique index does.
"""

from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    update,
)

from api.accounts.sql_expressions import has_address, has_owner, readable_time
from api.accounts.webhook_events import ACCOUNT_FIELDS, event_messages
from api.tables import users, verify_emails
from shared.outbox.appending import append_for_each
from shared.outbox.messages import SendWelcomeEmail
from shared.outbox.tables import outbox
from shared.webhooks.events import USER_VERIFIED

WRONG_PASSWORDS: Final = 5
"""A link ends after this many wrong passwords."""

# SQLAlchemy would take a parameter with a column's name for a value of an UPDATE.
_RECORD_ID: Final = bindparam("record_id", type_=BigInteger())


def _is_over() -> ColumnElement[bool]:
    return or_(verify_emails.c.expires_at <= func.now(), verify_emails.c.wrong_passwords >= WRONG_PASSWORDS)


@cache
def find_statement() -> Select[Any]:
    """Return the statement that reads a link's record and the accounts of its address.

    `owner` is the verified account of the address. `is_waiting` says whether the account that the link was made for
    still has the address unverified, `has_others` whether other accounts do. `chosen_…` describe the account that the
    client says is theirs.
    """
    own, owner, chosen, other = (users.alias(name) for name in ("own", "owner", "chosen", "other"))
    is_for_own = own.c.username == verify_emails.c.username
    is_for_owner = and_(has_address(owner, verify_emails.c.email), owner.c.is_email_verified)
    return (
        select(
            verify_emails.c.username,
            verify_emails.c.email,
            verify_emails.c.used_at.is_not(None).label("is_used"),
            _is_over().label("is_over"),
            owner.c.username.label("owner"),
            and_(has_address(own, verify_emails.c.email), not_(own.c.is_email_verified)).label("is_waiting"),
            exists()
            .where(has_address(other, verify_emails.c.email), not_(other.c.is_email_verified))
            .where(other.c.username != verify_emails.c.username)
            .label("has_others"),
            chosen.c.username.label("chosen_username"),
            readable_time(chosen.c.created_at).label("chosen_created_at"),
            chosen.c.hashed_password.label("chosen_hash"),
        )
        .select_from(verify_emails.join(own, is_for_own).outerjoin(owner, is_for_owner))
        .outerjoin(
            chosen,
            and_(chosen.c.username == bindparam("chosen", type_=Text()), has_address(chosen, verify_emails.c.email)),
        )
        .where(verify_emails.c.id == _RECORD_ID)
    )


@cache
def count_statement() -> Update:
    """Return the statement that counts a try before the comparison, so that parallel requests get no more tries."""
    return (
        update(verify_emails)
        .where(verify_emails.c.id == _RECORD_ID, not_(_is_over()))
        .values(wrong_passwords=verify_emails.c.wrong_passwords + 1)
        .returning(verify_emails.c.id)
    )


@cache
def uncount_statement() -> Update:
    """Return the statement that removes a count after a right password."""
    return (
        update(verify_emails)
        .where(verify_emails.c.id == _RECORD_ID, verify_emails.c.wrong_passwords > 0)
        .values(wrong_passwords=verify_emails.c.wrong_passwords - 1)
    )


@cache
def lock_statement() -> Select[Any]:
    """Return the statement that locks an address for a transaction, so that it is verified once at a time.

    It is a statement of its own because the next one has to see what was committed before the lock was acquired.
    Without it, two verifications would collide in the unique index, whose error writes the address into PostgreSQL's
    log.
    """
    name = literal("address:", Text()).concat(func.lower(bindparam("address", type_=Text())))
    return select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0)))


@cache
def use_statement() -> Select[Any]:
    """Return the statement that uses a link and returns the welcome message's id if it verified the address.

    `chosen` and `chosen_at` are the username and creation time of the account that the client has shown to be theirs.
    Without them, the statement verifies the account that the link was made for, if no other one has the address. It
    waits for the account's row and checks it again then. From then on the link belongs to that account, even if it was
    made for another one, and answers the same.
    """
    username, created_at = bindparam("chosen", type_=Text()), bindparam("chosen_at", type_=DateTime(timezone=True))
    record = (
        select(verify_emails.c.id, verify_emails.c.username, verify_emails.c.email)
        .where(verify_emails.c.id == _RECORD_ID, verify_emails.c.email == bindparam("address", type_=Text()))
        .where(not_(_is_over()))
        .cte("record")
    )
    other = users.alias("other")
    has_others = (
        exists()
        .where(has_address(other, record.c.email), not_(other.c.is_email_verified))
        .where(other.c.username != record.c.username)
    )
    is_meant = case(
        (created_at.is_(None), and_(users.c.username == record.c.username, not_(has_others))),
        else_=users.c.created_at == created_at,
    )
    verified = (
        update(users)
        .where(users.c.username == func.coalesce(username, record.c.username), has_address(users, record.c.email))
        .where(not_(users.c.is_email_verified), not_(has_owner(record.c.email)), is_meant)
        .values(is_email_verified=True, verified_at=func.now())
        .returning(*(users.c[name] for name in ACCOUNT_FIELDS))
        .cte("verified")
    )
    used = (
        update(verify_emails)
        .where(verify_emails.c.id == _RECORD_ID, exists(select(verified.c.username)))
        .values(
            used_at=func.coalesce(verify_emails.c.used_at, func.now()),
            username=select(verified.c.username).scalar_subquery(),
        )
        .returning(verify_emails.c.id)
        .cte("used")
    )
    message = (
        append_for_each(verified, SendWelcomeEmail, {"username": verified.c.username})
        .returning(outbox.c.id)
        .cte("message")
    )
    return select(message.c.id).add_cte(used, event_messages(verified, USER_VERIFIED))


@cache
def mark_used_statement() -> Update:
    """Return the statement that marks a link as used whose address is verified already.

    The link then says so after its expiry too.
    """
    is_verified = exists().where(
        users.c.username == bindparam("owner", type_=Text()),
        has_address(users, verify_emails.c.email),
        users.c.is_email_verified,
    )
    return (
        update(verify_emails)
        .where(verify_emails.c.id == _RECORD_ID, verify_emails.c.used_at.is_(None), not_(_is_over()), is_verified)
        .values(used_at=func.now())
    )
