"""The statements that write a mail as the limiter decided, and find the mails to an address."""

from typing import Final, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    DateTime,
    FromClause,
    LargeBinary,
    Text,
    and_,
    any_,
    bindparam,
    case,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert

from api.accounts.mail_limits.hourly_counts import counted
from api.tables import verification_mails
from shared.outbox.appending import append_discarded_for_each, append_for_each
from shared.outbox.messages import SendVerifyEmail
from shared.outbox.tables import outbox, outbox_finished


class MailShape(NamedTuple):
    """Which form of the statement writes a decided mail. There is one statement for each shape."""

    is_discarded: bool = False
    is_counted: bool = False


SHAPES: Final = (MailShape(), MailShape(is_counted=True), MailShape(is_discarded=True))


def is_to_address() -> ColumnElement[bool]:
    """Return the condition that a mail goes to this exact address, with the HMACs of any key."""
    mailboxes, addresses = (bindparam(name, type_=ARRAY(LargeBinary)) for name in ("of_mailboxes", "of_addresses"))
    return and_(
        verification_mails.c.mailbox_hmac == any_(mailboxes), verification_mails.c.address_hmac == any_(addresses)
    )


def limited_mail(source: FromClause, shape: MailShape) -> CTE:
    """Return the CTE that appends the verification mail of each account of `source`, as decided.

    Execute it with the decision's values, in the decision's transaction. Select `message_id` from it, the message's id.
    An empty source writes nothing.

    Args:
        source: has a row with the `username` and the `dedup_key` (mail_key, or NULL), and locks the account.
        shape: the decision's shape.

    """
    payload = {"username": source.c.username}
    if shape.is_discarded:
        reason = bindparam("mail_reason", type_=Text())
        append = append_discarded_for_each(source, SendVerifyEmail, payload, reason=reason)
        message = append.returning(outbox_finished.c.id).cte("message")
    else:
        due_at = bindparam("mail_due_at", type_=DateTime(timezone=True))
        append = append_for_each(source, SendVerifyEmail, payload, due_at=due_at, dedup_key=source.c.dedup_key)
        message = append.returning(outbox.c.id, outbox.c.due_at).cte("message")
    row = {
        "message_id": message.c.id,
        **{name: bindparam(name, type_=LargeBinary()) for name in ("mailbox_hmac", "address_hmac", "client_hmac")},
        "state": bindparam("mail_state", type_=Text()),
        "due_at": bindparam("mail_due_at", type_=DateTime(timezone=True)),
    }
    recorded = _once_for_each_message(
        insert(verification_mails).from_select(list(row), select(*row.values()).select_from(message))
    )
    if shape.is_counted:
        # A mail that became part of one that is due earlier is counted already.
        new = select(message.c.id).where(message.c.due_at == bindparam("mail_due_at", type_=DateTime(timezone=True)))
        recorded = recorded.add_cte(counted(new.cte("due_then")).cte("counted"))
    return recorded.returning(verification_mails.c.message_id).cte("limited_mail")


def _once_for_each_message(statement: Insert) -> Insert:
    """Return the INSERT that keeps one row for a message that several requests are part of: that of the earliest."""
    kept, new = verification_mails.c, statement.excluded
    is_earlier = new.due_at < kept.due_at
    return statement.on_conflict_do_update(
        index_elements=[kept.message_id],
        set_={
            # The same address, but its HMACs may be those of another key.
            "mailbox_hmac": new.mailbox_hmac,
            "address_hmac": new.address_hmac,
            "client_hmac": case((is_earlier, new.client_hmac), else_=kept.client_hmac),
            "state": case((is_earlier, new.state), else_=kept.state),
            "due_at": func.least(kept.due_at, new.due_at),
        },
    )
