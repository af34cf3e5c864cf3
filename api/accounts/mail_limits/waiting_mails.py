"""Hand over a waiting mail when its account changes to another address.

Only one mail per address waits, and its link works for each account of the address: later accounts rely on it. The
worker discards it once its account has moved, so another account's mail replaces it.
"""

from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    LargeBinary,
    Select,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.sql.dml import ReturningDelete

from api.accounts.mail_limits.limiter import MailLimiter
from api.accounts.mail_limits.statements import is_to_address
from api.accounts.signup_tokens.holders import Holder
from api.accounts.sql_expressions import has_address
from api.tables import users, verification_mails
from shared.outbox.appending import append_for_each
from shared.outbox.messages import SendVerifyEmail
from shared.outbox.tables import outbox


def is_held_back() -> ColumnElement[bool]:
    """Return the condition that a limit delayed a mail."""
    return or_(*(verification_mails.c.state == literal_column(f"'{state}'", Text()) for state in ("waiting", "daily")))


def hand_over(connection: Connection, limiter: MailLimiter, holder: Holder) -> None:
    """Stop counting the account's waiting mails to its address, and append one for the newest other account.

    Call it in a transaction that has locked the mailbox and no row yet. So a signup with the address comes before or
    after it, and the next decision counts the mail. An account whose row is locked is skipped instead of waited for.
    """
    values = {**limiter.address_values(holder.email), "holder": holder.username}
    released = connection.execute(release_statement(), values).all()
    if released:
        first = min(released, key=lambda row: row.due)
        values = {"old_address": holder.email, "holder": holder.username, **first._asdict()}
        connection.execute(hand_over_statement(), values)


@cache
def release_statement() -> ReturningDelete[Any, Any, Any, Any, Any]:
    """Return the statement that deletes the limits' rows. The messages stay: their worker discards them."""
    held_back = verification_mails.c
    return (
        delete(verification_mails)
        .where(is_to_address(), is_held_back(), held_back.due_at > func.now())
        .where(outbox.c.id == held_back.message_id, outbox.c.status == "pending")
        .where(outbox.c.payload["username"].astext == bindparam("holder", type_=Text()))
        .returning(
            held_back.mailbox_hmac.label("of_mailbox"),
            held_back.address_hmac.label("of_address"),
            held_back.client_hmac.label("of_client"),
            held_back.state.label("held_back"),
            held_back.due_at.label("due"),
        )
    )


@cache
def hand_over_statement() -> Select[Any]:
    """Return the statement that appends the mail of the newest other account."""
    successor = (
        select(users.c.username)
        .where(has_address(users, bindparam("old_address", type_=Text())), not_(users.c.is_email_verified))
        .where(users.c.username != bindparam("holder", type_=Text()))
        .order_by(users.c.created_at.desc())
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True)
        .cte("successor")
    )
    due_at = bindparam("due", type_=DateTime(timezone=True))
    message = (
        append_for_each(successor, SendVerifyEmail, {"username": successor.c.username}, due_at=due_at)
        .returning(outbox.c.id)
        .cte("message")
    )
    row = {
        "message_id": message.c.id,
        "mailbox_hmac": bindparam("of_mailbox", type_=LargeBinary()),
        "address_hmac": bindparam("of_address", type_=LargeBinary()),
        "client_hmac": bindparam("of_client", type_=LargeBinary()),
        "state": bindparam("held_back", type_=Text()),
        "due_at": due_at,
    }
    recorded = insert(verification_mails).from_select(list(row), select(*row.values()).select_from(message))
    return select(recorded.returning(verification_mails.c.message_id).cte("recorded").c.message_id)
