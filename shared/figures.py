"""What the outbox looks like at this moment, in numbers that cost little: for metrics, `stats` and `doctor`.

The live states are counted exactly: their rows are the work that waits, and partial indexes find them. History may be
large, so that its size is PostgreSQL's own estimate. Nothing here reads a table that grows with the years.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.messages import QUEUES

LIVE_STATES: Final = ("pending", "published", "running", "dead")

RELAY_SILENT_SECONDS: Final = 20.0
"""A relay shows itself every five seconds after a pass that worked; one that was silent for so long does no work."""

SELECT_LIVE: Final = """
    SELECT 'pending', queue, count(*),
           coalesce(extract(epoch FROM clock_timestamp() - min(due_at) FILTER (WHERE isfinite(due_at))), 0)::float8
      FROM outbox WHERE status = 'pending' GROUP BY queue
    UNION ALL
    SELECT 'published', queue, count(*), extract(epoch FROM clock_timestamp() - min(published_at))::float8
      FROM outbox WHERE status = 'published' GROUP BY queue
    UNION ALL
    SELECT 'running', queue, count(*), extract(epoch FROM clock_timestamp() - min(claimed_at))::float8
      FROM outbox WHERE status = 'running' GROUP BY queue
    UNION ALL
    SELECT 'dead', queue, count(*),
           coalesce(extract(epoch FROM clock_timestamp() - min(coalesce(claimed_at, created_at))
                                                           FILTER (WHERE isfinite(created_at))), 0)::float8
      FROM outbox WHERE status = 'dead' GROUP BY queue
"""
"""Rows for `live_states`: each statement of it is served by the partial index of its state."""

SELECT_SURROUNDINGS: Final = f"""
    SELECT (SELECT count(*) FROM outbox_relays
             WHERE seen_at > clock_timestamp() - make_interval(secs => {RELAY_SILENT_SECONDS})),
           (SELECT extract(epoch FROM clock_timestamp() - max(seen_at))::float8 FROM outbox_relays),
           (SELECT extract(epoch FROM clock_timestamp() - opened_at)::float8 FROM outbox_breaker WHERE name = 'mail'),
           (SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'outbox_finished'::regclass)
"""  # noqa: S608 - our own constant
"""The one row for `Surroundings`."""


@dataclass(frozen=True, slots=True)
class LiveState:
    """The messages of one queue in one state.

    Attributes:
        state: pending, published, running or dead.
        queue: critical or default.
        messages: how many, exactly.
        oldest_seconds: how long the oldest of them has been so: pending counts from the moment it was due (0 when all
            are due later), published from the push, running and dead from the last claim. 0 when there is none.

    """

    state: str
    queue: str
    messages: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the messages depend on, as PostgreSQL knows it.

    Attributes:
        relays: how many relays have shown themselves lately.
        relay_seen_seconds: how long ago the latest of them did; None when none ever did.
        mail_away_seconds: since when the mail server is known to be away; None while it is not.
        finished_estimate: how many messages are history, as PostgreSQL's statistics have it.

    """

    relays: int
    relay_seen_seconds: float | None
    mail_away_seconds: float | None
    finished_estimate: int


def live_states(rows: Iterable[Sequence[Any]]) -> list[LiveState]:
    """Give every state of every queue, those without a message too, from what SELECT_LIVE found."""
    found = {(row[0], row[1]): (int(row[2]), max(0.0, float(row[3]))) for row in rows}
    return [LiveState(state, queue, *found.get((state, queue), (0, 0.0))) for state in LIVE_STATES for queue in QUEUES]


def surroundings(row: Sequence[Any]) -> Surroundings:
    """Read the row of SELECT_SURROUNDINGS."""
    relays, seen, away, finished = row
    return Surroundings(int(relays), seen, away, int(finished or 0))
