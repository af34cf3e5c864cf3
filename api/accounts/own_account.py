"""Find an unverified account by its username and password.

People who lost the response to a signup, or the browser that made it, sign up again. Nothing is written but the count
of tries.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

from sqlalchemy import DateTime, Engine, Text, Update, bindparam, func, not_, text, update

from api.accounts.passwords.hashing import is_password
from api.accounts.sql_expressions import of_the_day, readable_time
from api.database.engine import connected
from api.tables import users

WRONG_PASSWORDS_A_DAY: Final = 5


@dataclass(frozen=True, slots=True)
class OwnAccount:
    """An unverified account."""

    username: str
    full_name: str
    email: str
    created_at: datetime


def find_own_account(engine: Engine, username: str, password: str) -> OwnAccount | None:
    """Return the unverified account of this username if the password is right. Raises DatabaseUnavailableError.

    Each try is counted and committed before the comparison, so many at once are still at most five. It takes equally
    long where there is nothing to compare.
    """
    with connected(engine) as connection:
        row = connection.execute(count_statement(), {"name": username}).one_or_none()
    is_right = is_password(None if row is None else row.hashed_password, password)
    if row is None or not is_right or row.created_at is None:
        return None
    with connected(engine) as connection:
        connection.execute(uncount_statement(), {"name": username, "counted_at": row.counted_at})
    return OwnAccount(username, row.full_name, row.email, row.created_at)


@cache
def count_statement() -> Update:
    """Return the statement that counts a try and returns what to compare it with; no row after five tries a day."""
    tries = of_the_day(users.c.wrong_passwords_at)
    return (
        update(users)
        .where(users.c.username == bindparam("name", type_=Text()), not_(users.c.is_email_verified))
        .where(text(f"(SELECT count(*) FROM ({tries}) AS tries) < {WRONG_PASSWORDS_A_DAY}"))  # noqa: S608 - constants
        .values(wrong_passwords_at=text(f"ARRAY({tries}) || now()"))
        .returning(
            users.c.full_name,
            users.c.email,
            users.c.hashed_password,
            readable_time(users.c.created_at).label("created_at"),
            func.now().label("counted_at"),
        )
    )


@cache
def uncount_statement() -> Update:
    """Return the statement that removes a count after a right password."""
    counted_at = bindparam("counted_at", type_=DateTime(timezone=True))
    return (
        update(users)
        .where(users.c.username == bindparam("name", type_=Text()))
        .values(wrong_passwords_at=func.array_remove(users.c.wrong_passwords_at, counted_at))
    )
