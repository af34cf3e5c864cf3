"""Send the verification mail again, without revealing who has an account.

The response is the same for every address. The same rows are written for every address, except for the message itself.
The response is held back for a fixed time, which hides that difference.
"""

import hashlib
import hmac
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import psycopg
from sqlalchemy import (
    CTE,
    Boolean,
    Connection,
    Delete,
    Engine,
    LargeBinary,
    Select,
    Text,
    bindparam,
    case,
    delete,
    func,
    not_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError

from api.accounts.mail_limits.limiter import MailLimiter
from api.accounts.mail_limits.statements import MailShape, limited_mail
from api.accounts.signup_tokens.holders import find_holder
from api.accounts.sql_expressions import as_name, has_address, mail_key
from api.database.engine import connected
from api.tables import resends, users

ANSWER_SECONDS: Final = 0.1
"""No response is sent earlier. Several times what the statements take while PostgreSQL is not overloaded, and the wait
for a lock."""

JOIN_SECONDS: Final = 0.03
"""How long the request waits for the row of a mail that it may become part of. A relay locks the row while it pushes
the job, for seconds if Redis is frozen."""

MAILS_A_DAY: Final = 5

_DELETED_AT_ONCE: Final = 20
_SALT: Final = b"outbox-signup.resend\n"
_SAVEPOINT: Final = text("SAVEPOINT ask")
_WAIT_SHORTLY: Final = text(f"SET LOCAL lock_timeout = '{JOIN_SECONDS * 1000:.0f}ms'")
_ROLLBACK: Final = text("ROLLBACK TO SAVEPOINT ask")
_OF_THE_DAY: Final = "SELECT mail FROM unnest(resends.mailed_at) AS mail WHERE mail > now() - interval '1 day'"
_WITHIN_A_MINUTE: Final = "now() - interval '1 minute' < ANY (resends.mailed_at)"


@dataclass(frozen=True, slots=True)
class ResendRequest:
    """A request to send the mail again.

    Attributes:
        email: the address.
        client: the client's network.
        username: the username of the account; None where the client named none.
        token: the client's signup token.

    """

    email: str
    client: str | None
    username: str | None = None
    token: str | None = field(default=None, repr=False)


def send_again(engine: Engine, secret_keys: Sequence[str], limiter: MailLimiter, request: ResendRequest) -> int | None:
    """Append the message if an unverified account has this address, and return the message's id.

    Of several accounts it is that of the token, else that of the username, else the newest. An address gets at most one
    mail a minute and five a day this way, and the mail counts in the limits of its mailbox. Requests beyond that get
    the same response. If a mail of the account waits for its first claim, the request becomes part of it. Only an HMAC
    of the address is stored, because most addresses may belong to people who never signed up. Raises
    DatabaseUnavailableError.
    """
    digest = hmac.digest(secret_keys[0].encode(), _SALT + request.email.lower().encode(), hashlib.sha256)
    with _held_back():
        # Separate transactions: two that delete each other's row would wait for each other.
        with connected(engine) as connection:
            connection.execute(delete_expired_statement())
        with connected(engine, in_transaction=True) as connection:
            decision = limiter.decide(connection, request.email, request.client)
            # Only the unverified account matters, so the days after the verification are 0.
            holder = find_holder(connection, secret_keys, request.token, days=0)
            values = {
                "email_hmac": digest,
                "email": request.email,
                "of_token": None if holder is None else holder.username,
                "of_name": None if request.username is None else as_name(request.username),
                **decision.values,
            }
            return _ask(connection, ask_statement(decision.shape), values)


def _ask(connection: Connection, statement: Select[Any], values: Mapping[str, object]) -> int | None:
    """Execute the statement, and return the message's id.

    If the row of the mail that it would become part of stays locked, the mail is a message of its own. A longer wait
    would show that the address has an account.
    """
    connection.execute(_SAVEPOINT)
    connection.execute(_WAIT_SHORTLY)
    try:
        return connection.execute(statement, {**values, "may_join": True}).scalar_one_or_none()
    except OperationalError as exc:
        if not isinstance(exc.orig, psycopg.errors.LockNotAvailable):
            raise
    # Ends the short wait, too.
    connection.execute(_ROLLBACK)
    return connection.execute(statement, {**values, "may_join": False}).scalar_one_or_none()


@contextmanager
def _held_back() -> Iterator[None]:
    """Take at least ANSWER_SECONDS, also on failure."""
    end = time.monotonic() + ANSWER_SECONDS
    try:
        yield
    finally:
        time.sleep(max(0.0, end - time.monotonic()))


@cache
def ask_statement(shape: MailShape) -> Select[Any]:
    """Return the statement that counts a mail to the address, and appends it for the unverified account.

    With `may_join` it becomes part of a mail to the account's address that waits for its first claim, if there is one.
    """
    count = _count()
    email = bindparam("email", type_=Text())
    waits = select(users.c.username).where(has_address(users, email), not_(users.c.is_email_verified))
    meant = func.coalesce(
        waits.where(users.c.username == bindparam("of_token", type_=Text())).scalar_subquery(),
        waits.where(users.c.username == bindparam("of_name", type_=Text())).scalar_subquery(),
        waits.order_by(users.c.created_at.desc()).limit(1).scalar_subquery(),
    )
    # Locks the account's row so that it is not deleted meanwhile, and checks it again after the lock.
    since = func.coalesce(users.c.email_set_at, users.c.created_at)
    key = case((bindparam("may_join", type_=Boolean()), mail_key(users.c.username, since)))
    unverified = (
        select(users.c.username, key.label("dedup_key"))
        .join_from(users, count, count.c.is_allowed)
        .where(users.c.username == meant, has_address(users, email), not_(users.c.is_email_verified))
        .with_for_update(key_share=True, of=users)
        .cte("unverified")
    )
    return select(limited_mail(unverified, shape).c.message_id)


def _count() -> CTE:
    """Return the CTE with one row that counts a mail. Its `is_allowed` says whether the mail may be sent.

    Of two requests at once, the second waits for the first one's row and checks what it finds there.
    """
    first = select(bindparam("email_hmac", type_=LargeBinary()), text("ARRAY[now()]"))
    is_allowed = f"NOT {_WITHIN_A_MINUTE} AND (SELECT count(*) FROM ({_OF_THE_DAY}) AS mails) < {MAILS_A_DAY}"  # noqa: S608 - constants
    counted = text(f"CASE WHEN {is_allowed} THEN ARRAY({_OF_THE_DAY}) || now() ELSE resends.mailed_at END")
    return (
        insert(resends)
        .from_select(["email_hmac", "mailed_at"], first)
        .on_conflict_do_update(index_elements=["email_hmac"], set_={"mailed_at": counted, "asked_at": func.now()})
        .returning((resends.c.mailed_at[func.cardinality(resends.c.mailed_at)] == func.now()).label("is_allowed"))
        .cte("count")
    )


@cache
def delete_expired_statement() -> Delete:
    """Return the statement that deletes some of the rows that are older than a day."""
    oldest = (
        select(resends.c.email_hmac)
        .where(resends.c.asked_at <= text("now() - interval '1 day'"))
        .order_by(resends.c.asked_at)
        .limit(_DELETED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return delete(resends).where(resends.c.email_hmac.in_(oldest))
