"""Change the address of an unverified account.

One statement locks the account's row, appends the new mail, and sets the address and `first_mail_id`, the new message's
id. Existing messages are not touched: workers discard those of the account with a lower id when they prepare them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    DateTime,
    Engine,
    Select,
    Text,
    Update,
    bindparam,
    func,
    not_,
    select,
    text,
    update,
)

from api.accounts.mail_limits.limiter import MailLimiter
from api.accounts.mail_limits.statements import MailShape, limited_mail
from api.accounts.mail_limits.waiting_mails import hand_over
from api.accounts.signup_tokens.holders import Holder, TokenRefusedError, find_holder
from api.accounts.sql_expressions import has_owner, mail_key, of_the_day
from api.database.engine import connected
from api.http.problems import FieldError, ProblemError
from api.tables import users

CORRECTIONS_A_DAY: Final = 5

VERIFIED: Final = "The email address of this account is already verified. It cannot be changed here."
TAKEN: Final = "Already taken: email."
TAKEN_FIELD: Final = "An account with this email address already exists. Use that account, or another address."
TOO_OFTEN: Final = f"You have changed the email address {CORRECTIONS_A_DAY} times in a day. Try again tomorrow."
"""Texts for clients."""


@dataclass(frozen=True, slots=True)
class CorrectionRequest:
    """A request to change an address.

    Attributes:
        token: the signup token, which identifies the account.
        email: the new address.
        client: the client's network.

    """

    token: str | None = field(repr=False)
    email: str
    client: str | None


def correct_address(
    engine: Engine, secret_keys: Sequence[str], limiter: MailLimiter, request: CorrectionRequest, days: float
) -> tuple[Holder, int | None]:
    """Change the address and return the account and the new mail's message id, None if the address is the same.

    Raises:
        TokenRefusedError: the token belongs to no account.
        ProblemError: the address may not be changed.
        DatabaseUnavailableError: PostgreSQL is unavailable.

    """
    with connected(engine, in_transaction=True) as connection:
        holder = find_holder(connection, secret_keys, request.token, days)
        if holder is None:
            raise TokenRefusedError
        if holder.is_email_verified:
            raise ProblemError(409, VERIFIED)
        if holder.email == request.email:
            return holder, None
        limiter.lock(connection, holder.email, request.email)
        hand_over(connection, limiter, holder)
        decision = limiter.decide(connection, request.email, request.client)
        values = {
            "holder": holder.username,
            "made_at": holder.created_at,
            "new_address": request.email,
            **decision.values,
        }
        message_id = connection.execute(correct_statement(decision.shape), values).scalar_one_or_none()
        if message_id is None:
            raise _refusal(connection, values)
    return replace(holder, email=request.email), message_id


@cache
def correct_statement(shape: MailShape) -> Update:
    """Return the statement. It returns the new message's id, or no row where the address may not be changed.

    The id is drawn after the row is locked, so it is higher than that of each mail that was requested before.
    """
    account = (
        select(users.c.username, mail_key(users.c.username, func.now()).label("dedup_key"))
        .where(users.c.username == bindparam("holder", type_=Text()))
        .where(users.c.created_at == bindparam("made_at", type_=DateTime(timezone=True)))
        .where(not_(users.c.is_email_verified), not_(has_owner(bindparam("new_address", type_=Text()))))
        .where(text(f"(SELECT count(*) FROM ({of_the_day(users.c.corrected_at)}) AS made) < {CORRECTIONS_A_DAY}"))  # noqa: S608 - constants
        .with_for_update(key_share=True, of=users)
        .cte("account")
    )
    mail = limited_mail(account, shape)
    return (
        update(users)
        .where(users.c.username == account.c.username)
        .values(
            email=bindparam("new_address", type_=Text()),
            first_mail_id=select(mail.c.message_id).scalar_subquery(),
            email_set_at=func.now(),
            corrected_at=text(f"ARRAY({of_the_day(users.c.corrected_at)}) || now()"),
        )
        .returning(users.c.first_mail_id)
    )


def _refusal(connection: Connection, values: Mapping[str, Any]) -> ProblemError:
    """Return why the address was not changed."""
    row = connection.execute(
        _state(), {name: values[name] for name in ("holder", "made_at", "new_address")}
    ).one_or_none()
    if row is None:
        return TokenRefusedError()
    if row.is_email_verified:
        return ProblemError(409, VERIFIED)
    if row.is_taken:
        return ProblemError(409, TAKEN, errors=[FieldError("email", TAKEN_FIELD)])
    return ProblemError(429, TOO_OFTEN, headers={"Retry-After": str(max(1, int(row.seconds or 0)))})


@cache
def _state() -> Select[Any]:
    made = of_the_day(users.c.corrected_at)
    left = "ceil(extract(epoch FROM min(at) + interval '1 day' - now()))"
    oldest = text(f"(SELECT {left} FROM ({made}) AS made) AS seconds")  # noqa: S608 - constants
    return (
        select(users.c.is_email_verified, has_owner(bindparam("new_address", type_=Text())).label("is_taken"), oldest)
        .where(users.c.username == bindparam("holder", type_=Text()))
        .where(users.c.created_at == bindparam("made_at", type_=DateTime(timezone=True)))
    )
