"""Sign up: create a user and the message that requests the verification mail, in one statement.

Its transaction begins with the decision when the mail is due (api.accounts.mail_limits.limiter).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Engine,
    Select,
    Text,
    bindparam,
    exists,
    func,
    not_,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from api.accounts.idempotency import RequestKey, find_outcome, keep_outcome
from api.accounts.mail_limits.limiter import MailDecision, MailLimiter
from api.accounts.mail_limits.statements import MailShape, limited_mail
from api.accounts.passwords.hashing import hash_password
from api.accounts.sql_expressions import has_address, has_owner, mail_key
from api.accounts.webhook_events import ACCOUNT_FIELDS, event_messages
from api.database.engine import DatabaseUnavailableError, connected
from api.tables import users
from shared.webhooks.events import USER_SIGNED_UP

_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class SignUpRequest:
    """A validated signup.

    Attributes:
        username: the account's name.
        full_name: the person's name.
        email: the address.
        password: of a new account, or of an existing unverified one.
        weakness: why a new account may not have this password; None where it may.

    """

    username: str
    full_name: str
    email: str
    password: str = field(repr=False)
    weakness: str | None = None


@dataclass(frozen=True, slots=True)
class MailRules:
    """How the mail of a signup is limited.

    Attributes:
        limiter: decides when it is due.
        client: the client's network; None where it is not known.
        delay_seconds: how long the mail is delayed in any case.

    """

    limiter: MailLimiter
    client: str | None
    delay_seconds: float = 0

    def decide(self, connection: Connection, email: str) -> MailDecision:
        """Return the decision about a mail to the address."""
        return self.limiter.decide(connection, email, self.client, delay_seconds=self.delay_seconds)


@dataclass(frozen=True, slots=True)
class SignedUp:
    """A user, and the id of the message that was committed with it; None for an existing account."""

    username: str
    full_name: str
    email: str
    is_email_verified: bool
    created_at: datetime
    message_id: int | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The names of the fields whose values belong to another account."""

    fields: tuple[str, ...]


def sign_up(engine: Engine, request: SignUpRequest, rules: MailRules) -> SignedUp | Taken:
    """Create the user and append its message, or return every taken field. Raises DatabaseUnavailableError.

    The password is hashed before a connection is borrowed: hashing takes ten times as long as writing.
    """
    values = _values(request)
    with connected(engine, in_transaction=True, is_deferred=True) as connection:
        return _write(connection, values, rules)


def sign_up_once(
    engine: Engine, request: SignUpRequest, key: RequestKey, rules: MailRules
) -> tuple[SignedUp | Taken, bool]:
    """Do the same in one transaction with the request's key. The second value is False if it had been done before.

    A repeated request gets the stored outcome and changes nothing.

    Raises:
        ProblemError: the key is in use, or was used with another body.
        DatabaseUnavailableError: PostgreSQL is unavailable.

    """
    values = _values(request)
    with connected(engine, in_transaction=True) as connection:
        if (earlier := find_outcome(connection, key)) is not None:
            return _outcome_of(earlier), False
        outcome = _write(connection, values, rules)
        if not (key.is_of_form and isinstance(outcome, Taken)):
            keep_outcome(connection, key, _as_json(outcome))
    return outcome, True


def _values(request: SignUpRequest) -> dict[str, str]:
    return {
        "username": request.username,
        "full_name": request.full_name,
        "email": request.email,
        "hashed_password": hash_password(request.password),
    }


def _write(connection: Connection, values: Mapping[str, str], rules: MailRules) -> SignedUp | Taken:
    decision = rules.decide(connection, values["email"])
    statement = signup_statement(decision.shape)
    for _ in range(_ATTEMPTS):
        written = connection.execute(statement, {**values, **decision.values}).one_or_none()
        if written is not None:
            return _signed_up(values, written.id, written.created_at)
        if fields := _taken_fields(connection, values):
            return Taken(fields)
        # The account with that name was deleted between the two statements: the name is free again.
    if _is_named(connection, values["email"]):
        # A database before its migration allows each address only once.
        return Taken(("email",))
    raise DatabaseUnavailableError(f"a name was taken and free again {_ATTEMPTS} times")


def _as_json(outcome: SignedUp | Taken) -> dict[str, Any]:
    if isinstance(outcome, Taken):
        return {"taken": list(outcome.fields)}
    return {"signed_up": {**asdict(outcome), "created_at": outcome.created_at.isoformat()}}


def _outcome_of(kept: Mapping[str, Any]) -> SignedUp | Taken:
    if "taken" in kept:
        return Taken(tuple(kept["taken"]))
    user = kept["signed_up"]
    return SignedUp(**{**user, "created_at": datetime.fromisoformat(user["created_at"])})


@cache
def signup_statement(shape: MailShape) -> Select[Any]:
    """Return the statement of a signup. It returns the message's id and the time, or no row if something is taken.

    A username belongs to its first account, an address to the account that was verified with it.

    ON CONFLICT DO NOTHING, because the DETAIL of a unique violation would put the address into PostgreSQL's log. The
    time is the transaction's, which is also the user's and the message's: reading it back from the user's row would
    cost as much as writing the message.
    """
    columns = ["username", "full_name", "email", "hashed_password"]
    given = select(*(bindparam(name, type_=Text()) for name in columns)).where(
        not_(has_owner(bindparam("email", type_=Text())))
    )
    new_user = (
        insert(users)
        .from_select(columns, given)
        .on_conflict_do_nothing()
        .returning(
            *(users.c[name] for name in ACCOUNT_FIELDS),
            mail_key(users.c.username, users.c.created_at).label("dedup_key"),
        )
        .cte("new_user")
    )
    mail = limited_mail(new_user, shape)
    signed_up = select(mail.c.message_id.label("id"), func.now().label("created_at")).select_from(mail)
    return signed_up.add_cte(event_messages(new_user, USER_SIGNED_UP))


def _signed_up(values: Mapping[str, str], message_id: int, created_at: datetime) -> SignedUp:
    return SignedUp(
        username=values["username"],
        full_name=values["full_name"],
        email=values["email"],
        is_email_verified=False,
        created_at=created_at,
        message_id=message_id,
    )


def _is_named(connection: Connection, email: str) -> bool:
    named = select(exists().where(has_address(users, bindparam("address", email, type_=Text()))))
    return bool(connection.execute(named).scalar_one())


def _taken_fields(connection: Connection, values: Mapping[str, str]) -> tuple[str, ...]:
    taken = select(
        exists().where(users.c.username == values["username"]).label("username"),
        has_owner(bindparam("email", values["email"], type_=Text())).label("email"),
    )
    row = connection.execute(taken).mappings().one()
    return tuple(name for name, is_taken in row.items() if is_taken)
