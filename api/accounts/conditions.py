"""Conditions on accounts that several statements share."""

from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, text
from sqlalchemy.sql.selectable import FromClause

from api.tables import users


def as_name(text: str) -> str:
    """Return a text that somebody sent as a username, such as PostgreSQL can be asked for."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def names(table: FromClause, email: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that an account names this address, whatever its case, as the indexes have it."""
    return func.lower(table.c.email) == func.lower(email)


def has_owner(email: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that an account was verified with this address, which then belongs to it."""
    owner = users.alias("owner")
    return exists().where(and_(names(owner, email), owner.c.is_email_verified))


def readable_time(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a time, or NULL where a row that another service wrote holds one that Python does not have."""
    return case((column.between(text("'0001-01-02'"), text("'9999-12-30'")), column))


def of_the_day(times: ColumnElement[Any]) -> str:
    """Return the query of those of the times that are at most a day old.

    What lies ahead, after a clock that was wrong, is forgotten. The present is not the transaction's, which may have
    waited for the row while others wrote later times into it.
    """
    span = "now() - interval '1 day' AND clock_timestamp()"
    return f"SELECT at FROM unnest({times}) AS at WHERE at BETWEEN {span}"  # noqa: S608 - a column
