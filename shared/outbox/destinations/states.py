"""Reads what is known of destinations. One without a row is reachable, not paused and not limited."""

from collections.abc import Collection
from dataclasses import dataclass

from shared.database.connections import DbConnection


@dataclass(frozen=True, slots=True)
class DestinationState:
    """What is known of a destination at one moment.

    Attributes:
        name: its name.
        is_open: whether it is known to be unreachable: its breaker is open.
        probe_id: the message that probes it meanwhile, if one does.
        is_paused: whether nothing may begin.
        max_per_second: how many messages may be sent in a second; None for no limit.
        max_in_flight: how many messages may be in hand at a time; None for no limit.

    """

    name: str
    is_open: bool = False
    probe_id: int | None = None
    is_paused: bool = False
    max_per_second: float | None = None
    max_in_flight: int | None = None

    @property
    def is_limited(self) -> bool:
        """Whether a message may begin only with a token or a place."""
        return self.max_per_second is not None or self.max_in_flight is not None


def read_destinations(connection: DbConnection, names: Collection[str]) -> dict[str, DestinationState]:
    """Return the states of these destinations.

    Call it in a transaction after the claim's: the claim may have waited for the relay that chose a probe, and no work
    may begin that was claimed after a pause.
    """
    rows = connection.execute(
        """
        SELECT name, opened_at IS NOT NULL, CASE WHEN opened_at IS NOT NULL THEN probe_id END, paused_at IS NOT NULL,
               max_per_second, max_in_flight
          FROM outbox_destinations
         WHERE name = ANY(%s::text[])
        """,
        [list(names)],
    ).fetchall()
    return {name: DestinationState(name) for name in names} | {row[0]: DestinationState(*row) for row in rows}
