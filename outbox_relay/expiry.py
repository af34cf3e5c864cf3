"""Expiry: accounts whose address was never verified are deleted, in steps so small that nobody waits for one."""

from typing import Final, NamedTuple

from outbox_relay import expiry_statements
from outbox_relay.expiry_statements import FIRST
from outbox_relay.statements import DbConnection
from shared.database import transaction

LOOKED_AT_ONCE: Final = 250


class ExpiryStep(NamedTuple):
    """How many accounts were deleted, and whether there are more to look at in this round."""

    deleted: int
    is_partial: bool


class AccountExpiry:
    """Looks at unverified accounts round by round, the oldest first, and deletes those that nobody waits for any more.

    It remembers where the last step ended: accounts that may not go yet, such as those with a dead letter, are looked
    at once a round.
    """

    def __init__(self, unverified_days: float) -> None:
        """Keep how long an account may wait."""
        self._unverified_days = unverified_days
        self._after = FIRST

    def step(self, connection: DbConnection) -> ExpiryStep:
        """Look at up to LOOKED_AT_ONCE accounts. Raises psycopg.Error: nothing was deleted."""
        deleted = 0
        with transaction(connection):
            found = expiry_statements.lock_accounts(connection, self._unverified_days, LOOKED_AT_ONCE, self._after)
            if found.usernames:
                refused = expiry_statements.lock_refused_mails(connection, found.usernames)
                deleted = expiry_statements.delete_accounts(connection, self._unverified_days, found.usernames, refused)
        is_partial = found.last is not None and found.looked_at == LOOKED_AT_ONCE
        self._after = found.last if found.last is not None and is_partial else FIRST
        return ExpiryStep(deleted, is_partial)
