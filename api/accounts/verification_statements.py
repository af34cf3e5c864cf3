"""The statements that look a link up and use it.

Lock order: the address (an advisory lock), then the account's row, then the link's. All statements that look at the
address's accounts compare addresses whatever their case, as the unique index does.
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

from api.accounts.conditions import has_owner, names, readable_time
from api.tables import users, verify_emails
from shared.outbox.appending import append_for_each
from shared.outbox.messages import SendWelcomeEmail
from shared.outbox.tables import outbox

WRONG_PASSWORDS: Final = 5
"""So many end a link."""

# SQLAlchemy takes a parameter named like a column for a value of an UPDATE: none is.
_RECORD_ID: Final = bindparam("record_id", type_=BigInteger())


def _is_over() -> ColumnElement[bool]:
    return or_(verify_emails.c.expires_at <= func.now(), verify_emails.c.wrong_passwords >= WRONG_PASSWORDS)


@cache
def find_statement() -> Select[Any]:
    """Build the statement that reads a link's record, and what the accounts that name its address allow.

    `owner` is the verified account of the address, `is_waiting` tells of the account that the link was made for whether
    it names the address and waits, `are_others` whether other accounts do. `meant_…` describe the account that somebody
    says is meant.
    """
    own, owner, meant, other = (users.alias(name) for name in ("own", "owner", "meant", "other"))
    is_for_own = own.c.username == verify_emails.c.username
    is_for_owner = and_(names(owner, verify_emails.c.email), owner.c.is_email_verified)
    return (
        select(
            verify_emails.c.username,
            verify_emails.c.email,
            verify_emails.c.used_at.is_not(None).label("is_used"),
            _is_over().label("is_over"),
            owner.c.username.label("owner"),
            and_(names(own, verify_emails.c.email), not_(own.c.is_email_verified)).label("is_waiting"),
            exists()
            .where(names(other, verify_emails.c.email), not_(other.c.is_email_verified))
            .where(other.c.username != verify_emails.c.username)
            .label("are_others"),
            meant.c.username.label("chosen_username"),
            readable_time(meant.c.created_at).label("chosen_created_at"),
            meant.c.hashed_password.label("chosen_hash"),
        )
        .select_from(verify_emails.join(own, is_for_own).outerjoin(owner, is_for_owner))
        .outerjoin(
            meant,
            and_(meant.c.username == bindparam("meant", type_=Text()), names(meant, verify_emails.c.email)),
        )
        .where(verify_emails.c.id == _RECORD_ID)
    )


@cache
def count_statement() -> Update:
    """Build the statement that counts a password before it is compared: many at once are no more tries."""
    return (
        update(verify_emails)
        .where(verify_emails.c.id == _RECORD_ID, not_(_is_over()))
        .values(wrong_passwords=verify_emails.c.wrong_passwords + 1)
        .returning(verify_emails.c.id)
    )


@cache
def uncount_statement() -> Update:
    """Build the statement that takes a count back: the password was right."""
    return (
        update(verify_emails)
        .where(verify_emails.c.id == _RECORD_ID, verify_emails.c.wrong_passwords > 0)
        .values(wrong_passwords=verify_emails.c.wrong_passwords - 1)
    )


@cache
def lock_statement() -> Select[Any]:
    """Build the statement that takes an address for a transaction: one verification of it at a time.

    A statement of its own, since the next one has to see what was committed before the lock was had. Without it two
    verifications would meet in the unique index, whose error writes the address into PostgreSQL's log.
    """
    name = literal("address:", Text()).concat(func.lower(bindparam("address", type_=Text())))
    return select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0)))


@cache
def use_statement() -> Select[Any]:
    """Build the one statement that uses a link and returns the welcome message's id if it verified the address.

    `meant` and `meant_at` are the name and the creation of an account that was shown to be meant. Without them it
    verifies the account that the link was made for, if no other one names the address. The account's row is waited for,
    and judged as it is by then. The link becomes the account's own, whoever's it was: it answers the same for good.
    """
    username, created_at = bindparam("meant", type_=Text()), bindparam("meant_at", type_=DateTime(timezone=True))
    record = (
        select(verify_emails.c.id, verify_emails.c.username, verify_emails.c.email)
        .where(verify_emails.c.id == _RECORD_ID, verify_emails.c.email == bindparam("address", type_=Text()))
        .where(not_(_is_over()))
        .cte("record")
    )
    other = users.alias("other")
    are_others = (
        exists()
        .where(names(other, record.c.email), not_(other.c.is_email_verified))
        .where(other.c.username != record.c.username)
    )
    is_meant = case(
        (created_at.is_(None), and_(users.c.username == record.c.username, not_(are_others))),
        else_=users.c.created_at == created_at,
    )
    verified = (
        update(users)
        .where(users.c.username == func.coalesce(username, record.c.username), names(users, record.c.email))
        .where(not_(users.c.is_email_verified), not_(has_owner(record.c.email)), is_meant)
        .values(is_email_verified=True, verified_at=func.now())
        .returning(users.c.username)
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
    return select(message.c.id).add_cte(used)


@cache
def mark_used_statement() -> Update:
    """Build the statement that marks a link as used whose address is verified already: it says so past its life too."""
    is_verified = exists().where(
        users.c.username == bindparam("owner", type_=Text()),
        names(users, verify_emails.c.email),
        users.c.is_email_verified,
    )
    return (
        update(verify_emails)
        .where(verify_emails.c.id == _RECORD_ID, verify_emails.c.used_at.is_(None), not_(_is_over()), is_verified)
        .values(used_at=func.now())
    )
