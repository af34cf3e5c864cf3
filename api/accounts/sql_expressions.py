"""SQL expressions about accounts that several statements share."""

from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, cast, exists, extract, func, text
from sqlalchemy.sql.selectable import FromClause

from api.tables import users


def as_name(text: str) -> str:
    """Return a client's text in a form that PostgreSQL can be asked for as a username."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def has_address(table: FromClause, email: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that an account has this address; case is ignored, as in the indexes."""
    return func.lower(table.c.email) == func.lower(email)


def has_owner(email: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that an account was verified with this address, and so owns it."""
    owner = users.alias("owner")
    return exists().where(and_(has_address(owner, email), owner.c.is_email_verified))


def mail_key(username: ColumnElement[Any], since: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the dedup key of an account's verification mails.

    A correction of the address makes a new key: a mail that was requested before it is discarded, so that no later
    request may become part of it. An account that takes a freed name has another key, too.

    Args:
        username: the account's name.
        since: when its address was set: at the last correction, else at its creation.

    """
    epoch = cast(extract("epoch", since), Text)
    # A hash: PostgreSQL's errors show a key, and another service may have written a name that is too long for one.
    return func.encode(func.sha256(func.convert_to(username + text("' '") + epoch, text("'UTF8'"))), text("'hex'"))


def readable_time(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a time, or NULL where another service wrote one that Python cannot represent."""
    return case((column.between(text("'0001-01-02'"), text("'9999-12-30'")), column))


def of_the_day(times: ColumnElement[Any]) -> str:
    """Return a query for the times of the last 24 hours.

    Times in the future, from a clock that was wrong, are left out. The present is not the transaction's start: it may
    have waited for the row while others wrote later times.
    """
    span = "now() - interval '1 day' AND clock_timestamp()"
    return f"SELECT at FROM unnest({times}) AS at WHERE at BETWEEN {span}"  # noqa: S608 - a column
