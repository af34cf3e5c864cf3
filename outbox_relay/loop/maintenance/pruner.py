"""Delete finished messages by age, in steps that lock few rows at a time."""

from typing import Final

from shared.database.connections import DbConnection
from shared.outbox import pruning

PRUNED_AT_ONCE: Final = 250


class Pruner:
    """Deletes the oldest finished messages step by step.

    It remembers where the last step ended. The index keeps the entries of deleted rows until a vacuum, and from its
    start each step would read all entries that the previous steps have deleted.
    """

    def __init__(self, keep_days: float) -> None:
        self._keep_days = keep_days
        self._since: str | None = None

    def step(self, connection: DbConnection) -> int:
        """Delete up to PRUNED_AT_ONCE messages and return how many; fewer mean that none is left.

        After the last one, the next step starts at the oldest message again: another relay may have locked a row for
        its own step.

        Raises:
            psycopg.Error: nothing was deleted.

        """
        pruned = pruning.prune(connection, self._keep_days, PRUNED_AT_ONCE, self._since)
        self._since = pruned.until if pruned.messages == PRUNED_AT_ONCE else None
        return pruned.messages
