"""Expiry: accounts whose address was never verified are deleted, in steps so small that nobody waits for one."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from outbox_relay.loop import expiry_statements
from outbox_relay.loop.expiry_statements import FIRST
from shared.database.connections import transaction
from shared.outbox.publishing import DbConnection

_log = structlog.get_logger(__name__)

LOOKED_AT_ONCE: Final = 100
_LOCK_SECONDS: Final = 0.5
"""For a link that somebody holds locked, and that goes with its account: publishing waits behind it."""

_LARGEST_JUMP_SECONDS: Final = 300.0
_LARGEST_DIFFERENCE_SECONDS: Final = 3600.0
_DISTRUST_SECONDS: Final = 3600.0


class ExpiryStep(NamedTuple):
    """How many accounts were deleted, and whether there are more to look at in this round."""

    deleted: int
    is_partial: bool


class TrustedClock:
    """Decides whether the database's clock may be believed where something is deleted for good.

    A clock that jumps ahead by days, as after a virtual machine was restored, would make every unverified account old.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """Keep this process's own clocks."""
        self._monotonic = monotonic
        self._wall = wall
        self._offset: float | None = None
        self._distrusted_until = float("-inf")

    def trusts(self, database_seconds: float) -> bool:
        """Return whether the database's time has gone on as ours has, for an hour, and is about the same."""
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
    """Looks at unverified accounts round by round, the oldest first, and deletes those that nobody waits for any more.

    It remembers where the last step ended: accounts that may not go yet, such as those with a dead letter, are looked
    at once a round.
    """

    def __init__(self, unverified_days: float, clock: TrustedClock | None = None) -> None:
        """Keep how long an account may wait."""
        self._unverified_days = unverified_days
        self._clock = clock or TrustedClock()
        self._after = FIRST

    def step(self, connection: DbConnection) -> ExpiryStep:
        """Look at up to LOOKED_AT_ONCE accounts. Raises psycopg.Error: nothing was deleted.

        Where it fails, the next step goes on behind these accounts: they come again in the next round.
        """
        deleted = 0
        with transaction(connection, lock_seconds=_LOCK_SECONDS):
            found = expiry_statements.lock_accounts(connection, self._unverified_days, LOOKED_AT_ONCE, self._after)
            is_partial = found.last is not None and found.looked_at == LOOKED_AT_ONCE
            self._after = found.last if found.last is not None and is_partial else FIRST
            is_trusted = self._clock.trusts(found.clock)
            if found.usernames and is_trusted:
                refused = expiry_statements.lock_refused_mails(connection, found.usernames)
                deleted = expiry_statements.delete_accounts(connection, self._unverified_days, found.usernames, refused)
        return ExpiryStep(deleted, is_partial)
