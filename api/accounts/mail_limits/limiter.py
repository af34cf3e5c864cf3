"""Nobody's mailbox is flooded: when the next verification mail to an address is due, for all processes together.

`decide` locks the mailbox for the rest of the caller's transaction, so that of two decisions about one mailbox the
second sees the first one's mail. Nothing else is locked: signups to different mailboxes never wait for each other. The
lock comes before any row's (users, outbox), everywhere.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, Final, NamedTuple, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    DateTime,
    FromClause,
    LargeBinary,
    Text,
    and_,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from api.accounts.mail_limits.hourly_counts import TOTAL, HourlyLimits, counted
from api.accounts.mail_limits.mailboxes import is_plain, mailbox_of
from api.accounts.mail_limits.scheduling import KnownMail, RequestedMail, Schedule, State, place
from api.database.engine import LOCK_SECONDS
from api.tables import verification_mails
from shared.database.connections import opening
from shared.outbox.appending import append_discarded_for_each, append_for_each
from shared.outbox.messages import SendVerifyEmail
from shared.outbox.tables import outbox, outbox_finished
from shared.settings.mail_limits import MailLimits

_SALT: Final = b"outbox-signup.mail-limits."
_HMAC_BYTES: Final = 16
_READ_AT_MOST: Final = 2000
_IPV6: Final = 6
_IPV6_PREFIX: Final = 48

# Statements in one round trip. The last one's snapshot is taken when the one before it has the lock. What was to leave
# later and is in the outbox no longer was given up by somebody: nobody waits for it.
_LOCK_AND_READ: Final = """
    SELECT pg_advisory_xact_lock(%(lock)s);
    SELECT present.now, m.due_at, m.address_hmac, m.client_hmac, m.state
      FROM (SELECT clock_timestamp() AS now) AS present
      LEFT JOIN verification_mails AS m
        ON m.mailbox_hmac = ANY(%(mailboxes)s) AND m.state <> 'discarded'
       AND m.due_at >= present.now - make_interval(secs => %(seconds)s)
       AND (m.due_at <= present.now OR EXISTS (SELECT FROM outbox AS o WHERE o.id = m.message_id))
     ORDER BY m.due_at DESC
     LIMIT %(most)s
"""


class MailShape(NamedTuple):
    """What a statement that writes a decided mail is built for: one statement for each shape."""

    is_discarded: bool = False
    is_counted: bool = False


SHAPES: Final = (MailShape(), MailShape(is_counted=True), MailShape(is_discarded=True))


@dataclass(frozen=True, slots=True)
class MailDecision:
    """What becomes of a mail that was asked for.

    Attributes:
        state, due_at, reason: as of a Schedule.
        shape: what the statement with `limited_mail` has to be built for.
        values: what that statement is to be executed with, beside its own.

    """

    state: State
    due_at: datetime
    reason: str | None
    shape: MailShape
    values: Mapping[str, object] = field(repr=False)


class MailLimiter:
    """Decides about verification mails."""

    def __init__(self, limits: MailLimits, secret_keys: Sequence[str]) -> None:
        """Keep the limits, and the keys for the HMACs: the first writes, all are looked for."""
        self._limits = limits
        self._keys = [key.encode() for key in secret_keys]

    def decide(
        self, connection: Connection, email: str, client: str | None, *, delay_seconds: float = 0
    ) -> MailDecision:
        """Decide when a mail to the address is due. Nothing is written yet: that is `limited_mail`'s.

        Args:
            connection: in a transaction, which holds no lock of a row yet. One that is deferred is opened here.
            email: the address, checked.
            client: the network of whoever asks (api.clients.networks); None where it is not known.
            delay_seconds: how much later the mail is wanted than now.

        """
        mailbox = mailbox_of(email)
        network = None if client is None else _wide_network(client)
        addresses = self._hmacs(b"address", email.lower())
        clients = [None] if network is None else self._hmacs(b"client", network)
        mailboxes = self._hmacs(b"mailbox", mailbox)
        now, rows = _lock_and_read(connection, mailbox, mailboxes, self._limits.days)
        known = [
            # What a former key wrote about this address or this client is about it still.
            KnownMail(
                due_at,
                addresses[0] if address in addresses else address,
                clients[0] if client_hmac in clients else client_hmac,
                state,
            )
            for _, due_at, address, client_hmac, state in rows
        ]
        asked = RequestedMail(
            now=now,
            wanted=now + timedelta(seconds=delay_seconds),
            address=addresses[0],
            client=clients[0],
            is_plain=is_plain(email),
        )
        hourly = self._hourly_limits(email)
        placed = hourly.place(connection, lambda not_before: place(asked, known, self._limits, not_before=not_before))
        shape = MailShape(
            is_discarded=placed.state == "discarded", is_counted=bool(hourly.by_scope) and placed.state != "discarded"
        )
        values = {"mailbox_hmac": mailboxes[0], **hourly.values(placed)}
        return _decision(placed, asked, shape, values)

    def _hourly_limits(self, email: str) -> HourlyLimits:
        if self._limits.domain_an_hour is None and self._limits.total_an_hour is None:
            return HourlyLimits({})
        domain = self._hmacs(b"domain", email.lower().rpartition("@")[2])[0]
        limits = {domain: self._limits.domain_an_hour, TOTAL: self._limits.total_an_hour}
        return HourlyLimits({scope: limit for scope, limit in limits.items() if limit is not None})

    def lock(self, connection: Connection, *emails: str) -> None:
        """Lock the mailboxes of several addresses for a transaction that is about more than one of them.

        In one order everywhere: two that change places would else wait for each other.
        """
        for number in sorted({_lock_of(mailbox_of(email)) for email in emails}):
            connection.execute(select(func.pg_advisory_xact_lock(number)))

    def address_values(self, email: str) -> dict[str, list[bytes]]:
        """Return what `is_to_address` is to be executed with."""
        return {
            "of_mailboxes": self._hmacs(b"mailbox", mailbox_of(email)),
            "of_addresses": self._hmacs(b"address", email.lower()),
        }

    def _hmacs(self, kind: bytes, text: str) -> list[bytes]:
        """Return the HMACs by all keys: what is written has the first one, what is there may have another."""
        content = _SALT + kind + b"\n" + text.encode()
        return [hmac.digest(key, content, hashlib.sha256)[:_HMAC_BYTES] for key in self._keys]


def _decision(placed: Schedule, asked: RequestedMail, shape: MailShape, more: Mapping[str, object]) -> MailDecision:
    values = {
        "mail_due_at": placed.due_at,
        "mail_state": placed.state,
        "mail_reason": None if placed.reason is None else f"discarded: {placed.reason}",
        "address_hmac": asked.address,
        "client_hmac": asked.client,
        **more,
    }
    return MailDecision(placed.state, placed.due_at, placed.reason, shape, values)


def _wide_network(client: str) -> str:
    """Return what counts as one client here: of IPv6 a /48, since whoever has one of its /64s may have them all.

    Neighbours share it, which matters to nobody: they share what one client may ask of one mailbox.
    """
    network = ip_network(client)
    return str(network.supernet(new_prefix=_IPV6_PREFIX) if network.version == _IPV6 else network)


def _lock_of(mailbox: str) -> int:
    """Return the mailbox's lock: the same in all processes while keys change, and no address in PostgreSQL's log."""
    return int.from_bytes(hashlib.sha256(_SALT + b"lock\n" + mailbox.encode()).digest()[:8], signed=True)


def _lock_and_read(
    connection: Connection, mailbox: str, hmacs: list[bytes], days: float
) -> tuple[datetime, list[tuple[Any, ...]]]:
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    statements = _LOCK_AND_READ
    if driver.info.transaction_status == TransactionStatus.IDLE:
        statements = f"{opening(driver, LOCK_SECONDS).decode()};{statements}"
    # psycopg's own cursor sends one statement at a time.
    with psycopg.ClientCursor(driver) as cursor:
        values = {
            "lock": _lock_of(mailbox),
            "mailboxes": hmacs,
            "seconds": days * 86_400,
            "most": _READ_AT_MOST,
        }
        cursor.execute(statements, values)
        while cursor.nextset():
            pass
        rows = cursor.fetchall()
    return rows[0][0], [row for row in rows if row[-1] is not None]


def is_to_address() -> ColumnElement[bool]:
    """Return the condition that a mail goes to one exact address, whichever key its HMACs were made with."""
    mailboxes, addresses = (bindparam(name, type_=ARRAY(LargeBinary)) for name in ("of_mailboxes", "of_addresses"))
    return and_(
        verification_mails.c.mailbox_hmac == any_(mailboxes), verification_mails.c.address_hmac == any_(addresses)
    )


def limited_mail(source: FromClause, shape: MailShape) -> CTE:
    """Build the CTE that appends the verification mail of each account of `source`, as was decided.

    Execute it with the decision's values, in its transaction. Whoever builds it selects from it `message_id`, the new
    message's id; nothing is written for an empty source.

    Args:
        source: has a row with the `username`, and locks the account.
        shape: of the decision.

    """
    payload = {"username": source.c.username}
    if shape.is_discarded:
        reason = bindparam("mail_reason", type_=Text())
        append = append_discarded_for_each(source, SendVerifyEmail, payload, reason=reason)
        message = append.returning(outbox_finished.c.id).cte("message")
    else:
        due_at = bindparam("mail_due_at", type_=DateTime(timezone=True))
        append = append_for_each(source, SendVerifyEmail, payload, due_at=due_at)
        message = append.returning(outbox.c.id).cte("message")
    row = {
        "message_id": message.c.id,
        **{name: bindparam(name, type_=LargeBinary()) for name in ("mailbox_hmac", "address_hmac", "client_hmac")},
        "state": bindparam("mail_state", type_=Text()),
        "due_at": bindparam("mail_due_at", type_=DateTime(timezone=True)),
    }
    recorded = insert(verification_mails).from_select(list(row), select(*row.values()).select_from(message))
    if shape.is_counted:
        recorded = recorded.add_cte(counted(message).cte("counted"))
    return recorded.returning(verification_mails.c.message_id).cte("limited_mail")
