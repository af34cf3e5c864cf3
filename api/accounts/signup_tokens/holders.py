"""Find the account that a signup token belongs to, while the token is valid."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Float, Select, Text, bindparam, func, not_, or_, select

from api.accounts.signup_tokens.signing import is_token_of, username_in
from api.accounts.sql_expressions import readable_time
from api.http.problems import ProblemError
from api.tables import users

NOT_KNOWN: Final = (
    "We don't recognize this signup. Sign up again with the same username and password, or send its signup_token as"
    " Authorization: Bearer."
)
"""Texts for clients."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An account whose token was presented."""

    username: str
    email: str
    is_email_verified: bool
    created_at: datetime


class TokenRefusedError(ProblemError):
    """The token is missing, or belongs to no account any more."""

    def __init__(self) -> None:
        super().__init__(401, NOT_KNOWN, headers={"WWW-Authenticate": "Bearer"})


def find_holder(connection: Connection, secret_keys: Sequence[str], token: str | None, days: float) -> Holder | None:
    """Return the account of the token; None where there is none.

    Args:
        connection: to the database.
        secret_keys: the keys that may have signed it.
        token: as the client sent it.
        days: how long it is valid after the account's verification.

    """
    values = {"holder": username_in(token), "seconds": days * 86_400}
    row = connection.execute(_find(), values).one_or_none()
    if row is None or not is_token_of(secret_keys, token, row.username, row.created_at):
        return None
    return Holder(row.username, row.email, row.is_email_verified, row.created_at)


@cache
def _find() -> Select[Any]:
    span = func.make_interval(0, 0, 0, 0, 0, 0, bindparam("seconds", type_=Float()))
    serves_until = func.coalesce(users.c.verified_at, users.c.created_at) + span
    return (
        select(
            users.c.username,
            users.c.email,
            users.c.is_email_verified,
            readable_time(users.c.created_at).label("created_at"),
        )
        .where(users.c.username == bindparam("holder", type_=Text()))
        .where(or_(not_(users.c.is_email_verified), serves_until > func.now()))
    )
