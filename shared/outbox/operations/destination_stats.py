"""The destinations, with their messages and what holds them up: for metrics, console, commands and `doctor`.

Their number is not limited, so at most DESTINATIONS_SHOWN have a row of their own, and the rest are one row. No
statement reads a whole table.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.columns import LARGEST_ID, distance
from shared.outbox.destinations.control import DISABLED
from shared.outbox.discovery import NO_DESTINATION
from shared.outbox.messages import MAIL
from shared.outbox.operations.stats import COUNTED_EXACTLY, PENDING_ORDER, LiveState, pending_sources

DESTINATIONS_SHOWN: Final = 100

COUNTED_OF_EACH: Final = 1000
"""Of each destination and status, messages are counted up to this number."""

OTHER: Final = "other"
"""The row of all other destinations, and of messages whose destination the claim will fill in. A destination with this
name is part of it."""

_MARKED: Final = (
    "(opened_at IS NOT NULL OR paused_at IS NOT NULL OR max_per_second IS NOT NULL OR max_in_flight IS NOT NULL)"
)

_SELECT_MARKED: Final = f"""
    SELECT name,
           CASE WHEN opened_at IS NOT NULL
                THEN greatest(0, coalesce({distance("clock_timestamp()", "opened_at")}, 0)) END,
           CASE WHEN opened_at IS NOT NULL THEN last_error END,
           CASE WHEN paused_at IS NOT NULL
                THEN greatest(0, coalesce({distance("clock_timestamp()", "paused_at")}, 0)) END,
           pause_reason, max_per_second, max_in_flight
      FROM outbox_destinations
     WHERE {_MARKED}
     ORDER BY name
     LIMIT {COUNTED_EXACTLY}
"""  # noqa: S608 - expressions and a constant of our own

_SELECT_NAMES: Final = f"""
    WITH RECURSIVE {pending_sources(DESTINATIONS_SHOWN + 1)}
    SELECT 'pending', name, 0 FROM pending WHERE name <> ''
    UNION ALL
    SELECT 'published', coalesce(destination, ''), count(*)
      FROM (SELECT destination FROM outbox WHERE status = 'published'
             ORDER BY broker_epoch, lease_until LIMIT {COUNTED_EXACTLY} + 1) AS first
     GROUP BY 2
    UNION ALL
    SELECT 'running', coalesce(destination, ''), count(*)
      FROM (SELECT destination FROM outbox WHERE status = 'running'
             ORDER BY lease_until LIMIT {COUNTED_EXACTLY} + 1) AS first
     GROUP BY 2
"""  # noqa: S608 - our own constants

_COUNT_PENDING: Final = f"""
    SELECT chosen.name, sum(counted.messages), max(head.oldest)
      FROM unnest(%(names)s::text[]) AS chosen (name),
           unnest(ARRAY['critical', 'default']) AS q (queue),
           LATERAL (SELECT count(*) AS messages
                      FROM (SELECT FROM outbox
                             WHERE status = 'pending'
                               AND ({PENDING_ORDER}) >= (q.queue, chosen.name, timestamptz '-infinity', 0)
                               AND ({PENDING_ORDER}) <= (q.queue, chosen.name, timestamptz 'infinity', {LARGEST_ID})
                             ORDER BY {PENDING_ORDER} LIMIT %(counted)s + 1) AS first) AS counted,
           LATERAL (SELECT (SELECT CASE WHEN isfinite(due_at)
                                        THEN extract(epoch FROM clock_timestamp() - due_at)::float8 END
                              FROM outbox
                             WHERE status = 'pending'
                               AND ({PENDING_ORDER}) > (q.queue, chosen.name, timestamptz '-infinity', {LARGEST_ID})
                               AND ({PENDING_ORDER}) <= (q.queue, chosen.name, timestamptz 'infinity', 0)
                             ORDER BY {PENDING_ORDER} LIMIT 1) AS oldest) AS head
     GROUP BY chosen.name
"""  # noqa: S608 - our own constants


@dataclass(frozen=True, slots=True)
class DestinationStats:
    """One destination. The attributes' names are the keys of `destinations --json`.

    Attributes:
        name: the destination; OTHER for the rest.
        pending: the number of its pending messages, counted up to a limit.
        published, running: the numbers of its messages among the first 10,000 that have been so for the longest time.
        are_all: whether all were counted.
        oldest_seconds: how long the oldest pending message has been due; 0 if none is. Of OTHER it is that of the
            messages without a destination.
        unreachable_seconds: how long the breaker has been open; None while it is closed. Of OTHER it is the longest, as
            is paused_seconds.
        last_error: why it is open.
        paused_seconds: how long the destination has been paused; None if it is not.
        pause_reason: why it is paused.
        max_per_second, max_in_flight: its limits; None for none.

    """

    name: str
    pending: int = 0
    published: int = 0
    running: int = 0
    are_all: bool = True
    oldest_seconds: float = 0.0
    unreachable_seconds: float | None = None
    last_error: str | None = None
    paused_seconds: float | None = None
    pause_reason: str | None = None
    max_per_second: float | None = None
    max_in_flight: int | None = None

    @property
    def is_disabled(self) -> bool:
        """Whether the pause is that of a disabled endpoint, which `resume` does not end."""
        return self.pause_reason is not None and self.pause_reason.startswith(DISABLED)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing but a probe is published."""
        return self.unreachable_seconds is not None or self.paused_seconds is not None

    @property
    def is_limited(self) -> bool:
        """Whether messages may have to wait for a limit."""
        return self.max_per_second is not None or self.max_in_flight is not None


def read_destination_stats(
    connection: DbConnection, live: Sequence[LiveState], *, counted: int = COUNTED_OF_EACH
) -> list[DestinationStats]:
    """Return the destinations that have messages, or are unreachable, paused or limited: mail first, OTHER last.

    Those that are unreachable or paused come before limited ones, and these before all others. OTHER is left out if it
    is empty.

    Args:
        connection: in a read_transaction, which keeps to the indexes.
        live: the present numbers of messages, of which OTHER has what no row of its own has.
        counted: the limit of the numbers.

    """
    marked = {
        name: DestinationStats(
            name,
            unreachable_seconds=unreachable,
            last_error=error,
            paused_seconds=paused,
            pause_reason=reason,
            max_per_second=rate,
            max_in_flight=in_flight,
        )
        for name, unreachable, error, paused, reason, rate, in_flight in connection.execute(_SELECT_MARKED)
    }
    at_work: dict[str, Counter[str]] = {status: Counter() for status in ("pending", "published", "running")}
    for status, name, messages in connection.execute(_SELECT_NAMES):
        at_work[status][name] += messages
    named = {*marked, *at_work["pending"], *at_work["published"], *at_work["running"]}
    found = sorted(
        (marked.get(name, DestinationStats(name)) for name in {MAIL, *named} - {OTHER, NO_DESTINATION}), key=_rank
    )
    shown = found[:DESTINATIONS_SHOWN]
    hidden = [*found[DESTINATIONS_SHOWN:], *(marked.get(name, DestinationStats(name)) for name in {OTHER} & named)]
    pending = {
        name: (int(messages), max(0.0, oldest or 0.0))
        for name, messages, oldest in connection.execute(
            _COUNT_PENDING, {"names": [*(each.name for each in shown), NO_DESTINATION], "counted": counted}
        )
    }
    are_all_at_work = all(at_work[status].total() <= COUNTED_EXACTLY for status in ("published", "running"))

    def with_messages(destination: DestinationStats, name: str) -> DestinationStats:
        messages, oldest_seconds = pending[name]
        return replace(
            destination,
            pending=min(messages, counted),
            published=at_work["published"][name],
            running=at_work["running"][name],
            are_all=messages <= counted and are_all_at_work,
            oldest_seconds=oldest_seconds,
        )

    rows = [with_messages(each, each.name) for each in shown]
    other = _other(with_messages(DestinationStats(OTHER), NO_DESTINATION), rows, hidden, live)
    return rows if other == DestinationStats(OTHER) else [*rows, other]


def _rank(destination: DestinationStats) -> tuple[bool, bool, bool, str]:
    return (
        destination.name != MAIL,
        not destination.is_blocked,
        not destination.is_limited,
        destination.name,
    )


def _other(
    unnamed: DestinationStats,
    shown: Sequence[DestinationStats],
    hidden: Sequence[DestinationStats],
    live: Sequence[LiveState],
) -> DestinationStats:
    """Return the row of all others: the messages without a destination, and the destinations that are not shown."""
    if not hidden:
        return unnamed

    def rest(status: str, counted: int) -> int:
        return max(0, sum(each.messages for each in live if each.status == status) - counted)

    # If a number was not counted to its end, what it lacks would count as another destination's.
    is_known = all(each.are_all for each in shown)
    return replace(
        unnamed,
        pending=rest("pending", sum(each.pending for each in shown)) if is_known else unnamed.pending,
        published=rest("published", sum(each.published for each in shown)),
        running=rest("running", sum(each.running for each in shown)),
        are_all=is_known,
        unreachable_seconds=max(
            (each.unreachable_seconds for each in hidden if each.unreachable_seconds is not None), default=None
        ),
        paused_seconds=max((each.paused_seconds for each in hidden if each.paused_seconds is not None), default=None),
    )
