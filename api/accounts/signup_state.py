"""What is known of a signup and its mail, for whoever holds its token."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal

from sqlalchemy import Connection, Select, Text, bindparam, exists, func, literal_column, not_, select

from api.accounts.conditions import has_owner, names, readable_time
from api.accounts.mail_limits.hourly_counts import hour_of
from api.accounts.mail_limits.limiter import MailLimiter, is_to_address
from api.accounts.mail_limits.waiting_mails import is_held_back
from api.accounts.token_holders import Holder
from api.tables import users, verification_mails, verify_emails
from shared.outbox.tables import outbox, outbox_finished

MailStateName = Literal["pending", "waiting", "sent", "taken"]

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class MailState:
    """What is known of the mail.

    Attributes:
        state: `pending`, on its way; `waiting` for a limit; `sent`, handed to the mail server; `taken`, another
            account was verified with the address.
        until: when a waiting mail leaves at the latest, up to a full hour: a stranger's signup with the same address
            may be what it waits for, and nobody shall learn when that was.

    """

    state: MailStateName
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SignupState:
    """An account, and what is known of its mail."""

    username: str
    email: str
    is_email_verified: bool
    mail: MailState

    def as_json(self) -> Mapping[str, Any]:
        """Return it as the API answers."""
        mail: dict[str, Any] = {"state": self.mail.state}
        if self.mail.until is not None:
            mail["until"] = self.mail.until.astimezone(UTC).isoformat()
        return {
            "username": self.username,
            "email": self.email,
            "is_email_verified": self.is_email_verified,
            "mail": mail,
        }


def read_state(connection: Connection, limiter: MailLimiter, holder: Holder) -> SignupState:
    """Return what is known."""
    values = {"holder": holder.username, **limiter.address_values(holder.email)}
    row = connection.execute(state_statement(), values).one_or_none()
    return SignupState(holder.username, holder.email, holder.is_email_verified, _mail_state(row, holder))


def _mail_state(row: Any, holder: Holder) -> MailState:  # noqa: ANN401 - a row
    if holder.is_email_verified or row is None:
        return MailState("sent" if holder.is_email_verified else "pending")
    if row.is_taken:
        return MailState("taken")
    if row.until is not None:
        return MailState("waiting", _full_hour(row.until))
    return MailState("sent" if row.is_sent or row.is_covered else "pending")


def _full_hour(moment: datetime) -> datetime:
    at = moment.astimezone(UTC)
    full = hour_of(at)
    return full if full == at else full + _HOUR


@cache
def state_statement() -> Select[Any]:
    """Build the statement. A mail to the address for another account counts, since its link serves this one too."""
    waits = (
        select(func.min(readable_time(outbox.c.due_at)))
        .join_from(verification_mails, outbox, outbox.c.id == verification_mails.c.message_id)
        .where(is_to_address(), is_held_back())
        .where(outbox.c.status == "pending", outbox.c.due_at > func.now())
        .scalar_subquery()
    )
    is_covered = (
        exists()
        .select_from(verification_mails.join(outbox_finished, outbox_finished.c.id == verification_mails.c.message_id))
        # The message of a discarded mail is never done: saying so lets the index serve.
        .where(is_to_address(), verification_mails.c.state != literal_column("'discarded'", Text()))
        .where(outbox_finished.c.status == "done")
        .where(verification_mails.c.due_at >= func.coalesce(users.c.email_set_at, users.c.created_at))
    )
    was_discarded = exists().where(
        outbox_finished.c.id == verify_emails.c.message_id, outbox_finished.c.status == "discarded"
    )
    is_sent = (
        exists()
        .where(verify_emails.c.username == users.c.username, names(verify_emails, users.c.email))
        .where(not_(exists().where(outbox.c.id == verify_emails.c.message_id)), not_(was_discarded))
    )
    return select(
        has_owner(users.c.email).label("is_taken"),
        waits.label("until"),
        is_covered.label("is_covered"),
        is_sent.label("is_sent"),
    ).where(users.c.username == bindparam("holder", type_=Text()))
