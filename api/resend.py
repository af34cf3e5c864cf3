"""Sending the verification mail again, to whoever may ask for it."""

from sqlalchemy import Engine, func, select

from api.database import connected
from shared.messages import SendVerifyEmail
from shared.models import outbox, users
from shared.outbox import append_for_each


def send_again(engine: Engine, email: str) -> int | None:
    """Append the message if an account with this address waits for its verification, and return the message's id.

    One statement whatever the address, so that the answer tells nobody who has an account. Raises
    DatabaseUnavailableError.
    """
    unverified = (
        select(users.c.username)
        .where(func.lower(users.c.email) == func.lower(email), users.c.is_email_verified.is_(False))
        .subquery("unverified")
    )
    statement = append_for_each(unverified, SendVerifyEmail, {"username": unverified.c.username})
    with connected(engine) as connection:
        message_id: int | None = connection.execute(statement.returning(outbox.c.id)).scalar_one_or_none()
    return message_id
