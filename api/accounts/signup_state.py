"""Read the state of a signup and its mail, for the holder of its token."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal

from sqlalchemy import Connection, Select, Text, bindparam, exists, func, literal_column, not_, select

from api.accounts.mail_limits.hourly_counts import hour_of
from api.accounts.mail_limits.limiter import MailLimiter
from api.accounts.mail_limits.statements import is_to_address
from api.accounts.mail_limits.waiting_mails import is_held_back
from api.accounts.signup_tokens.holders import Holder
from api.accounts.sql_expressions import has_address, has_owner, readable_time
from api.tables import users, verification_mails, verify_emails
from shared.outbox.tables import outbox, outbox_finished

MailStateName = Literal["pending", "waiting", "sent", "taken"]

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class MailState:
    """The state of the mail.

    Attributes:
        state: `pending`, on its way; `waiting`, delayed by a limit; `sent`, accepted by the mail server; `taken`,
            another account was verified with the address.
        until: when a waiting mail is sent at the latest, rounded up to an hour. It may wait because of another person's
            signup with the same address, and the exact time would reveal when that was.

    """

    state: MailStateName
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SignupState:
    """An account and the state of its mail."""

    username: str
    email: str
    is_email_verified: bool
    mail: MailState

    def as_json(self) -> Mapping[str, Any]:
        """Return the state as the API's JSON."""
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
    """Return the state of the holder's account."""
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
    """Return the statement.

    Another account's mail to the address counts, because its link works for this account too.
    """
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
        # Redundant, because a discarded mail's message is never done, but it makes the index usable.
        .where(is_to_address(), verification_mails.c.state != literal_column("'discarded'", Text()))
        .where(outbox_finished.c.status == "done")
        .where(verification_mails.c.due_at >= func.coalesce(users.c.email_set_at, users.c.created_at))
    )
    was_discarded = exists().where(
        outbox_finished.c.id == verify_emails.c.message_id, outbox_finished.c.status == "discarded"
    )
    is_sent = (
        exists()
        .where(verify_emails.c.username == users.c.username, has_address(verify_emails, users.c.email))
        .where(not_(exists().where(outbox.c.id == verify_emails.c.message_id)), not_(was_discarded))
    )
    return select(
        has_owner(users.c.email).label("is_taken"),
        waits.label("until"),
        is_covered.label("is_covered"),
        is_sent.label("is_sent"),
    ).where(users.c.username == bindparam("holder", type_=Text()))
