"""Verifying an address with the link that was mailed to it."""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Engine, Select, bindparam, func, select, update

from api.database import DatabaseUnavailableError, connected
from shared.links import is_authentic
from shared.messages import SendWelcomeEmail
from shared.models import outbox, users, verify_emails
from shared.outbox import append_for_each

_ATTEMPTS: Final = 3
_LARGEST_ID: Final = 2**63 - 1
# As the mails write it: no sign, no leading zero, no digits of other scripts.
_RECORD_ID: Final = re.compile(r"[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Link:
    """The two parameters of a link, as they came."""

    email_id: str
    secret_code: str = field(repr=False)

    @property
    def record_id(self) -> int | None:
        """The number of the verification record, None for what cannot be one."""
        if not _RECORD_ID.fullmatch(self.email_id) or (number := int(self.email_id)) > _LARGEST_ID:
            return None
        return number


class LinkState(enum.Enum):
    """What a link is worth at the moment."""

    OPEN = "open"
    """It would verify its address."""
    VERIFIED = "verified"
    """It was used and its address is verified; it stays that way past the link's life."""
    EXPIRED = "expired"
    NOT_VALID = "not valid"
    """Unknown, altered, or the user has another address by now: nobody is told which."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What a link is worth, and what came of using it.

    Attributes:
        state: what it is worth, after its use if it was used.
        address: where the link was mailed to, for whoever has an authentic one.
        message_id: the welcome message, if this use verified the address.

    """

    state: LinkState
    address: str | None = None
    message_id: int | None = None


def look_up(engine: Engine, secret_keys: Sequence[str], link: Link) -> Verification:
    """Tell what a link is worth, changing nothing. Raises DatabaseUnavailableError."""
    with connected(engine) as connection:
        return _look_up(connection, secret_keys, link)


def verify_email(engine: Engine, secret_keys: Sequence[str], link: Link) -> Verification:
    """Use a link. However many do so at once, one verifies the address and appends the one welcome message.

    Raises DatabaseUnavailableError.
    """
    with connected(engine) as connection:
        for _ in range(_ATTEMPTS):
            found = _look_up(connection, secret_keys, link)
            if found.state is not LinkState.OPEN:
                return found
            message_id = connection.execute(use_statement(), {"record_id": link.record_id}).scalar_one_or_none()
            if message_id is not None:
                return Verification(LinkState.VERIFIED, found.address, message_id)
            # Somebody else was faster, or another link did it before, or the address changed just now: look again.
    raise DatabaseUnavailableError(f"a link was open and could not be used, {_ATTEMPTS} times")


def _look_up(connection: Connection, secret_keys: Sequence[str], link: Link) -> Verification:
    """Look the record up. The signature is checked first: who has none learns nothing about the record."""
    if link.record_id is None:
        return Verification(LinkState.NOT_VALID)
    row = connection.execute(_record(), {"record_id": link.record_id}).one_or_none()
    if row is None or not is_authentic(secret_keys, link.record_id, row.email, link.secret_code):
        return Verification(LinkState.NOT_VALID)
    if not row.is_current_address:
        return Verification(LinkState.NOT_VALID)
    if row.is_used and row.is_email_verified:
        return Verification(LinkState.VERIFIED, row.email)
    return Verification(LinkState.EXPIRED if row.is_expired else LinkState.OPEN, row.email)


@cache
def _record() -> Select[Any]:
    return (
        select(
            verify_emails.c.email,
            (verify_emails.c.used_at.is_not(None)).label("is_used"),
            (verify_emails.c.expires_at <= func.now()).label("is_expired"),
            (users.c.email == verify_emails.c.email).label("is_current_address"),
            users.c.is_email_verified,
        )
        .join(users, users.c.username == verify_emails.c.username)
        .where(verify_emails.c.id == bindparam("record_id", type_=BigInteger()))
    )


@cache
def use_statement() -> Select[Any]:
    """Build the one statement that uses a link and gives the welcome message's id if it verified the address.

    Two of them at once: the second waits for the first one's row of users, and PostgreSQL then checks that row again
    as it is by now. It is verified already, so there is no second message.
    """
    record = (
        update(verify_emails)
        .where(
            verify_emails.c.id == bindparam("record_id", type_=BigInteger()), verify_emails.c.expires_at > func.now()
        )
        .values(used_at=func.coalesce(verify_emails.c.used_at, func.now()))
        .returning(verify_emails.c.username, verify_emails.c.email)
        .cte("record")
    )
    verified = (
        update(users)
        .where(users.c.username == record.c.username, users.c.email == record.c.email)
        .where(users.c.is_email_verified.is_(False))
        .values(is_email_verified=True)
        .returning(users.c.username)
        .cte("verified")
    )
    message = (
        append_for_each(verified, SendWelcomeEmail, {"username": verified.c.username})
        .returning(outbox.c.id)
        .cte("message")
    )
    return select(message.c.id)
