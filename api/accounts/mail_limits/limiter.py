"""Decide when the next verification mail to an address is due, so that nobody's mailbox is flooded.

The limits hold for all processes together. `decide` locks the mailbox for the rest of the caller's transaction, so that
of two decisions about one mailbox the second sees the first one's mail. It locks nothing else: signups to different
mailboxes never wait for each other. The lock is always taken before any row's (users, outbox).
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, Final, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    Connection,
    func,
    select,
)

from api.accounts.mail_limits.hourly_counts import TOTAL, HourlyLimits
from api.accounts.mail_limits.scheduling import KnownMail, RequestedMail, schedule
from api.accounts.mail_limits.statements import MailShape
from api.database.engine import LOCK_SECONDS
from shared.database.connections import opening
from shared.settings.mail_limits import MailLimits

_SALT: Final = b"outbox-signup.mail-limits."
_HMAC_BYTES: Final = 16
_READ_AT_MOST: Final = 2000
_ONE_DOMAIN: Final = {"googlemail.com": "gmail.com"}
"""Two domains with the same mailboxes."""

_WITHOUT_DOTS: Final = frozenset({"gmail.com"})
"""Providers that ignore dots in the part before the @."""

_IPV6: Final = 6
_IPV6_PREFIX: Final = 48

# Several statements in one round trip. The last one's snapshot is taken after the lock is acquired. A mail that is due
# in the future but no longer in the outbox was discarded, so it does not count.
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


@dataclass(frozen=True, slots=True)
class MailDecision:
    """The decision about a mail, for the statement that writes it.

    Attributes:
        shape: which form of the `limited_mail` statement writes it.
        values: the values for that statement, in addition to its own.

    """

    shape: MailShape
    values: Mapping[str, object] = field(repr=False)


class MailLimiter:
    """Decides when verification mails are due."""

    def __init__(self, limits: MailLimits, secret_keys: Sequence[str]) -> None:
        """Store the limits and the HMAC keys: the first key writes, all keys are searched for."""
        self._limits = limits
        self._keys = [key.encode() for key in secret_keys]

    def decide(
        self, connection: Connection, email: str, client: str | None, *, delay_seconds: float = 0
    ) -> MailDecision:
        """Return when a mail to the address is due. Writes nothing: `limited_mail` does.

        Args:
            connection: in a transaction without row locks. A deferred transaction is opened here.
            email: the validated address.
            client: the client's network (api.clients.forwarding); None where it is not known.
            delay_seconds: how long the mail is delayed in any case.

        """
        mailbox = mailbox_of(email)
        network = None if client is None else _wide_network(client)
        addresses = self._hmacs(b"address", email.lower())
        clients = [None] if network is None else self._hmacs(b"client", network)
        mailboxes = self._hmacs(b"mailbox", mailbox)
        now, rows = _lock_and_read(connection, mailbox, mailboxes, self._limits.days)
        known = [
            # A row that a former key wrote counts for this address and client too.
            KnownMail(
                due_at,
                addresses[0] if address in addresses else address,
                clients[0] if client_hmac in clients else client_hmac,
                state,
            )
            for _, due_at, address, client_hmac, state in rows
        ]
        requested = RequestedMail(
            now=now,
            wanted=now + timedelta(seconds=delay_seconds),
            address=addresses[0],
            client=clients[0],
            is_plain=is_plain(email),
        )
        hourly = self._hourly_limits(email)
        scheduled = hourly.schedule(
            connection, lambda not_before: schedule(requested, known, self._limits, not_before=not_before)
        )
        shape = MailShape(
            is_discarded=scheduled.state == "discarded",
            is_counted=bool(hourly.by_scope) and scheduled.state != "discarded",
        )
        values = {
            "mail_due_at": scheduled.due_at,
            "mail_state": scheduled.state,
            "mail_reason": None if scheduled.reason is None else f"discarded: {scheduled.reason}",
            "mailbox_hmac": mailboxes[0],
            "address_hmac": requested.address,
            "client_hmac": requested.client,
            **hourly.values(scheduled),
        }
        return MailDecision(shape, values)

    def _hourly_limits(self, email: str) -> HourlyLimits:
        if self._limits.domain_an_hour is None and self._limits.total_an_hour is None:
            return HourlyLimits({})
        domain = self._hmacs(b"domain", email.lower().rpartition("@")[2])[0]
        limits = {domain: self._limits.domain_an_hour, TOTAL: self._limits.total_an_hour}
        return HourlyLimits({scope: limit for scope, limit in limits.items() if limit is not None})

    def lock(self, connection: Connection, *emails: str) -> None:
        """Lock the mailboxes of several addresses for a transaction.

        In one order everywhere: otherwise two transactions could wait for each other.
        """
        for number in sorted({_lock_of(mailbox_of(email)) for email in emails}):
            connection.execute(select(func.pg_advisory_xact_lock(number)))

    def address_values(self, email: str) -> dict[str, list[bytes]]:
        """Return the values for a statement with `is_to_address`."""
        return {
            "of_mailboxes": self._hmacs(b"mailbox", mailbox_of(email)),
            "of_addresses": self._hmacs(b"address", email.lower()),
        }

    def _hmacs(self, kind: bytes, text: str) -> list[bytes]:
        """Return the HMACs by all keys. New rows have the first one; existing rows may have another."""
        content = _SALT + kind + b"\n" + text.encode()
        return [hmac.digest(key, content, hashlib.sha256)[:_HMAC_BYTES] for key in self._keys]


def _wide_network(client: str) -> str:
    """Return what counts as one client here: for IPv6 a /48, because the owner of a /64 may own all of its /48.

    Neighbors share it, which is harmless: they only share what one client may request for one mailbox.
    """
    network = ip_network(client)
    return str(network.supernet(new_prefix=_IPV6_PREFIX) if network.version == _IPV6 else network)


def _lock_of(mailbox: str) -> int:
    """Return the mailbox's lock number. It does not depend on the keys, and puts no address into PostgreSQL's log."""
    return int.from_bytes(hashlib.sha256(_SALT + b"lock\n" + mailbox.encode()).digest()[:8], signed=True)


def _lock_and_read(
    connection: Connection, mailbox: str, hmacs: list[bytes], days: float
) -> tuple[datetime, list[tuple[Any, ...]]]:
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    statements = _LOCK_AND_READ
    if driver.info.transaction_status == TransactionStatus.IDLE:
        statements = f"{opening(driver, LOCK_SECONDS).decode()};{statements}"
    # psycopg's default cursor sends only one statement at a time.
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


def mailbox_of(email: str) -> str:
    """Return the mailbox's own address: lower case, without `+tag`, and without dots where they have no meaning.

    Providers have more ways to spell an address. Two spellings that are not known to be equal count as two mailboxes.
    """
    name, _, domain = email.lower().rpartition("@")
    domain = _ONE_DOMAIN.get(domain, domain)
    # An address that begins with a tag has nothing before it.
    name = name.partition("+")[0] or name
    if domain in _WITHOUT_DOTS:
        name = name.replace(".", "")
    return f"{name}@{domain}"


def is_plain(email: str) -> bool:
    """Return whether an address is its mailbox's own, without a tag."""
    return email.lower() == mailbox_of(email)
