"""The present number and age of messages, and the state of relays and mail server: for metrics, console and commands.

No statement reads a whole table, because these numbers are needed most when the outbox has millions of messages. Up to
COUNTED_EXACTLY messages of a status are counted; larger numbers are estimates, and marked as such. The size of history
is PostgreSQL's own estimate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.database.connections import DbConnection
from shared.outbox.columns import LARGEST_ID, LIVE_STATUSES
from shared.outbox.discovery import AFTER_ALL_NAMES
from shared.outbox.messages import QUEUES

_Place = tuple[str, str]
"""A status and a queue."""
_Count = tuple[int, float]
"""The number of messages, and the age of the oldest in seconds."""

RELAY_SILENT_SECONDS: Final = 20.0
"""A relay writes a heartbeat every five seconds while its passes work. Without one for this long it counts as dead."""

COUNTED_EXACTLY: Final = 10_000
"""With more messages than that of a status, their number and the age of the oldest are estimates."""

SAMPLED_PAGES: Final = 300
"""The number of pages, picked at random over the whole table, that an estimate reads."""

_DESTINATIONS_READ: Final = 1000
"""Of how many destinations of a queue the oldest pending message is read. With more destinations, and too many messages
to count them, the age of the oldest is an estimate."""

PENDING_ORDER: Final = "queue, coalesce(destination, ''), due_at, id"
"""The columns of outbox_due_idx, which alone has this order."""


def pending_sources(limit: int) -> str:
    """Return the SQL of a recursive query `pending (queue, name, number)`: the destinations with pending messages.

    In each queue it jumps from name to name along outbox_due_idx, up to `limit` names. The first name is '', whether a
    message names no destination or not; the last one is NULL if there are no more.
    """
    return f"""pending (queue, name, number) AS (
        SELECT queue, '' COLLATE "C", 0
          FROM unnest(ARRAY['critical', 'default']) AS q (queue)
        UNION ALL
        SELECT queue, (SELECT coalesce(destination, '') FROM outbox
                        WHERE status = 'pending'
                          AND ({PENDING_ORDER}) > (pending.queue, pending.name, timestamptz 'infinity', {LARGEST_ID})
                          AND ({PENDING_ORDER}) <= (pending.queue, '{AFTER_ALL_NAMES}', timestamptz 'infinity',
                                                    {LARGEST_ID})
                        ORDER BY {PENDING_ORDER} LIMIT 1), number + 1
          FROM pending
         WHERE name IS NOT NULL AND number < {limit}
    )"""  # noqa: S608 - our own constants


_SELECT_LIVE: Final = f"""
    WITH RECURSIVE {pending_sources(_DESTINATIONS_READ)}
    SELECT 'pending', queue, messages,
           extract(epoch FROM clock_timestamp() - least(oldest, (
               SELECT min(head.due_at)
                 FROM pending,
                      LATERAL (SELECT due_at FROM outbox
                                WHERE status = 'pending'
                                  AND ({PENDING_ORDER}) > (q.queue, name, timestamptz '-infinity', {LARGEST_ID})
                                  AND ({PENDING_ORDER}) < (q.queue, name, timestamptz 'infinity', 0)
                                ORDER BY {PENDING_ORDER} LIMIT 1) AS head
                WHERE pending.queue = q.queue AND name IS NOT NULL)))::float8
      FROM unnest(ARRAY['critical', 'default']) AS q (queue),
           LATERAL (SELECT count(*) AS messages, min(due_at) FILTER (WHERE isfinite(due_at)) AS oldest
                      FROM (SELECT due_at FROM outbox WHERE status = 'pending' AND outbox.queue = q.queue
                             ORDER BY {PENDING_ORDER} LIMIT {COUNTED_EXACTLY + 1}) AS first) AS counted
    UNION ALL
    SELECT 'published', queue, count(*),
           extract(epoch FROM clock_timestamp() - min(published_at) FILTER (WHERE isfinite(published_at)))::float8
      FROM (SELECT queue, published_at FROM outbox WHERE status = 'published'
             ORDER BY broker_epoch, lease_until LIMIT {COUNTED_EXACTLY + 1}) AS first GROUP BY queue
    UNION ALL
    SELECT 'running', queue, count(*),
           extract(epoch FROM clock_timestamp() - min(claimed_at) FILTER (WHERE isfinite(claimed_at)))::float8
      FROM (SELECT queue, claimed_at FROM outbox WHERE status = 'running'
             ORDER BY lease_until LIMIT {COUNTED_EXACTLY + 1}) AS first GROUP BY queue
    UNION ALL
    SELECT 'dead', queue, count(*),
           extract(epoch FROM clock_timestamp() - min(died_at) FILTER (WHERE isfinite(died_at)))::float8
      FROM (SELECT queue, coalesce(claimed_at, created_at) AS died_at FROM outbox WHERE status = 'dead'
             ORDER BY id LIMIT {COUNTED_EXACTLY + 1}) AS first GROUP BY queue
    UNION ALL
    SELECT 'pages', '', pg_relation_size('outbox') / current_setting('block_size')::bigint, NULL
"""  # noqa: S608 - our own constant
# Each part reads the partial index of its status in that index's order. Without an order PostgreSQL may read the table
# from its start, past millions of messages with another status.

_SAMPLE_LIVE: Final = """
    SELECT status, queue, count(*),
           extract(epoch FROM clock_timestamp() - min(since) FILTER (WHERE isfinite(since)))::float8
      FROM (SELECT status, queue,
                   CASE status WHEN 'pending' THEN due_at
                               WHEN 'published' THEN published_at WHEN 'running' THEN claimed_at
                               WHEN 'dead' THEN coalesce(claimed_at, created_at) END AS since
              FROM outbox TABLESAMPLE SYSTEM (%s) REPEATABLE (0)) AS sample
     GROUP BY status, queue
"""
# The same pages each time: an estimate that changed from scrape to scrape would look like messages that come and go.

_SELECT_DEPENDENCIES: Final = f"""
    SELECT (SELECT count(*) FROM outbox_relays
             WHERE seen_at > clock_timestamp() - make_interval(secs => {RELAY_SILENT_SECONDS})),
           (SELECT extract(epoch FROM clock_timestamp() - max(seen_at))::float8 FROM outbox_relays),
           (SELECT extract(epoch FROM clock_timestamp() - opened_at)::float8
              FROM outbox_destinations WHERE name = 'mail'),
           (SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'outbox_finished'::regclass)
"""  # noqa: S608 - our own constant


@dataclass(frozen=True, slots=True)
class LiveState:
    """The messages of one queue with one status. The attributes' names are the keys of `stats --json`.

    Attributes:
        status: pending, published, running or dead.
        queue: critical or default.
        messages: their number; exact, unless it is an estimate.
        oldest_seconds: how long the oldest of them has had this status: pending counts from the due time (0 if all are
            due later), published from the push, running and dead from the last claim. 0 if there is none.
        is_estimate: whether there were too many to count. The number is then estimated from a sample of the table to
            about 10%, and the oldest is at least that old. The age of the oldest pending message is exact for up to
            1,000 destinations.

    """

    status: str
    queue: str
    messages: int
    oldest_seconds: float
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class DependencyStatus:
    """The state of relays, mail server and history, as PostgreSQL knows it.

    Attributes:
        relays: the number of relays with a recent heartbeat.
        relay_seen_seconds: the age of the latest heartbeat; None if there is none.
        mail_away_seconds: how long the mail server has been known to be unavailable; None while it is available.
        finished_estimate: the number of finished messages, estimated by PostgreSQL's statistics.

    """

    relays: int
    relay_seen_seconds: float | None
    mail_away_seconds: float | None
    finished_estimate: int


def read_live_states(connection: DbConnection) -> list[LiveState]:
    """Return every status of every queue, also those without messages. The time does not depend on their number."""
    counted = _by_place(connection.execute(_SELECT_LIVE).fetchall())
    pages, _ = counted.pop(("pages", ""))
    too_many = _too_many(counted)
    sampled: dict[_Place, _Count] = {}
    if too_many:
        percent = min(100.0, 100 * SAMPLED_PAGES / max(1, pages))
        sampled = _by_place(connection.execute(_SAMPLE_LIVE, [percent]).fetchall(), scale=100 / percent)
    return [
        _live_state(place, counted.get(place, (0, 0.0)), sampled.get(place, (0, 0.0)), is_estimate=place in too_many)
        for place in ((state, queue) for state in LIVE_STATUSES for queue in QUEUES)
    ]


def read_dependency_status(connection: DbConnection) -> DependencyStatus:
    """Return the state of relays, mail server and history."""
    row = connection.execute(_SELECT_DEPENDENCIES).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    relays, seen, away, finished = row
    return DependencyStatus(int(relays), seen, away, int(finished or 0))


def _by_place(rows: Iterable[Sequence[Any]], scale: float = 1.0) -> dict[_Place, _Count]:
    return {(row[0], row[1]): (round(row[2] * scale), max(0.0, float(row[3] or 0.0))) for row in rows}


def _too_many(counted: Mapping[_Place, _Count]) -> set[_Place]:
    """Return what was not counted completely: pending by queue, other statuses with both queues."""
    by_state = {state: sum(counted.get((state, queue), (0, 0.0))[0] for queue in QUEUES) for state in LIVE_STATUSES}
    return {
        (state, queue)
        for state in LIVE_STATUSES
        for queue in QUEUES
        if (counted.get((state, queue), (0, 0.0))[0] if state == "pending" else by_state[state]) > COUNTED_EXACTLY
    }


def _live_state(place: _Place, counted: _Count, sampled: _Count, *, is_estimate: bool) -> LiveState:
    messages, oldest = counted
    if is_estimate:
        # Never fewer than were counted.
        messages = max(messages, _two_digits(sampled[0]))
        oldest = max(oldest, sampled[1])
    return LiveState(*place, messages, oldest, is_estimate)


def _two_digits(number: int) -> int:
    """Return the number rounded to two digits, which is the precision of a sample."""
    return round(number, 2 - len(str(number)))
