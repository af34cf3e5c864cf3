"""Signing up: a user and the message that asks for the verification mail, in one statement."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Engine, Select, Text, bindparam, exists, func, select, true
from sqlalchemy.dialects.postgresql import insert

from api.database import DatabaseUnavailableError, connected, patience
from api.passwords import hash_password
from shared.messages import SendVerifyEmail
from shared.models import outbox, users
from shared.outbox import append_for_each

_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class SignUp:
    """What somebody who signs up tells us, checked."""

    username: str
    full_name: str
    email: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedUp:
    """The new user, and the id of the message that was committed with it."""

    username: str
    full_name: str
    email: str
    is_email_verified: bool
    created_at: datetime
    message_id: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The names of the fields whose values belong to another user already."""

    fields: tuple[str, ...]


def sign_up(engine: Engine, wish: SignUp, *, mail_delay_seconds: float = 0) -> SignedUp | Taken:
    """Create the user and append its message, or name every taken field. Raises DatabaseUnavailableError.

    The password is hashed before a connection is borrowed: hashing takes ten times as long as writing.
    """
    values = {
        "username": wish.username,
        "full_name": wish.full_name,
        "email": wish.email,
        "hashed_password": hash_password(wish.password),
    }
    with connected(engine) as connection:
        for _ in range(_ATTEMPTS):
            row = connection.execute(_user_and_message(mail_delay_seconds), values).one_or_none()
            if row is not None:
                return SignedUp(*row)
            if fields := _taken_fields(connection, wish):
                return Taken(fields)
            # Whoever held the name was deleted between the two statements: it is free again.
    raise DatabaseUnavailableError(f"a name was taken and free again {_ATTEMPTS} times")


@cache
def _user_and_message(mail_delay_seconds: float) -> Select[Any]:
    """Build the one statement of a signup.

    ON CONFLICT DO NOTHING instead of a unique violation: the DETAIL of that error would put the address into
    PostgreSQL's log.
    """
    columns = ["username", "full_name", "email", "hashed_password"]
    given = select(*(bindparam(name, type_=Text()) for name in columns)).select_from(patience())
    new_user = (
        insert(users)
        .from_select(columns, given)
        .on_conflict_do_nothing()
        .returning(users.c.username, users.c.full_name, users.c.email, users.c.is_email_verified, users.c.created_at)
        .cte("new_user")
    )
    message = (
        append_for_each(new_user, SendVerifyEmail, {"username": new_user.c.username}, delay_seconds=mail_delay_seconds)
        .returning(outbox.c.id)
        .cte("message")
    )
    return select(new_user, message.c.id).join_from(new_user, message, true())


def _taken_fields(connection: Connection, wish: SignUp) -> tuple[str, ...]:
    taken = select(
        exists().where(users.c.username == wish.username).label("username"),
        exists().where(func.lower(users.c.email) == func.lower(wish.email)).label("email"),
    )
    row = connection.execute(taken).mappings().one()
    return tuple(name for name, is_taken in row.items() if is_taken)
