"""Delete accounts whose address was never verified, in steps that lock few rows at a time."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from outbox_relay.loop.maintenance import expiry_statements
from outbox_relay.loop.maintenance.expiry_statements import FIRST
from outbox_relay.loop.pacing import ACCOUNTS_AT_ONCE
from shared.database.connections import DbConnection, transaction

_log = structlog.get_logger(__name__)

_LOCK_SECONDS: Final = 0.5
"""The longest wait for a locked link of an account. Publishing waits as long."""

_LARGEST_JUMP_SECONDS: Final = 300.0
_LARGEST_DIFFERENCE_SECONDS: Final = 3600.0
_DISTRUST_SECONDS: Final = 3600.0


class ExpiryStep(NamedTuple):
    """The number of deleted accounts, and whether there are more accounts to check."""

    deleted: int
    is_partial: bool


class TrustedClock:
    """Decides whether the database's clock is trusted for deletions.

    A clock that jumps ahead by days, as after a virtual machine was restored, would make every unverified account old.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._offset: float | None = None
        self._distrusted_until = float("-inf")

    def trusts(self, database_seconds: float) -> bool:
        """Return whether the database's clock agrees with ours, and has not jumped within the last hour."""
        now = self._monotonic()
        offset = database_seconds - now
        if self._offset is not None and abs(offset - self._offset) > _LARGEST_JUMP_SECONDS:
            self._distrusted_until = now + _DISTRUST_SECONDS
            _log.error("clock.jumped", seconds=round(offset - self._offset), meaning="no account expires for an hour")
        self._offset = offset
        difference = database_seconds - self._wall()
        if abs(difference) > _LARGEST_DIFFERENCE_SECONDS:
            _log.error(
                "clock.disagreed", seconds=round(difference), meaning="no account expires until it agrees with ours"
            )
            return False
        return now >= self._distrusted_until


class AccountExpiry:
    """Deletes unverified accounts that have expired, the oldest first.

    It remembers where the last step ended, so that accounts that cannot be deleted yet, such as those with a dead
    letter, are checked once in each run through all accounts.
    """

    def __init__(
        self,
        unverified_days: float,
        clock: TrustedClock | None = None,
        *,
        accounts_at_once: int = ACCOUNTS_AT_ONCE,
    ) -> None:
        """Start at the oldest account.

        Args:
            unverified_days: how long an account may wait for its verification.
            clock: decides whether the database's clock is trusted.
            accounts_at_once: the largest number of accounts that one step checks.

        """
        self._accounts_at_once = accounts_at_once
        self._unverified_days = unverified_days
        self._clock = clock or TrustedClock()
        self._after = FIRST

    def step(self, connection: DbConnection) -> ExpiryStep:
        """Check the next accounts, and delete those that have expired.

        If it fails, the next step continues behind these accounts. They are checked again in the next run.

        Raises:
            psycopg.Error: nothing was deleted.

        """
        deleted = 0
        with transaction(connection, lock_seconds=_LOCK_SECONDS):
            found = expiry_statements.lock_accounts(
                connection, self._unverified_days, self._accounts_at_once, self._after
            )
            is_partial = found.last is not None and found.checked == self._accounts_at_once
            self._after = found.last if found.last is not None and is_partial else FIRST
            is_trusted = self._clock.trusts(found.clock)
            if found.usernames and is_trusted:
                refused = expiry_statements.lock_refused_mails(connection, found.usernames)
                deleted = expiry_statements.delete_accounts(connection, self._unverified_days, found.usernames, refused)
        return ExpiryStep(deleted, is_partial)
