"""Pruning: finished messages leave by their age, in steps so small that nobody waits for one."""

from typing import Final

from shared.outbox import publishing
from shared.outbox.publishing import DbConnection

PRUNED_AT_ONCE: Final = 250


class Pruner:
    """Deletes the oldest finished messages step by step.

    It remembers where the last step ended. The index keeps the entries of deleted rows until a vacuum, and from its
    beginning each step would walk over all that the steps before it have deleted.
    """

    def __init__(self, keep_days: float) -> None:
        """Keep how old a message may become."""
        self._keep_days = keep_days
        self._since: str | None = None

    def step(self, connection: DbConnection) -> int:
        """Delete up to PRUNED_AT_ONCE messages and return how many; fewer when there are no more. Raises psycopg.Error.

        After the last one the next step begins at the beginning: another relay may have held a row for its own step.
        """
        pruned = publishing.prune(connection, self._keep_days, PRUNED_AT_ONCE, self._since)
        self._since = pruned.until if pruned.messages == PRUNED_AT_ONCE else None
        return pruned.messages
