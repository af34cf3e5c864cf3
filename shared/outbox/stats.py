"""What the outbox looks like at this moment, in numbers that cost little: for metrics, console and commands.

Nothing here reads a whole table: an outbox with millions of messages is when these numbers are needed most. Messages
are counted exactly up to COUNTED_EXACTLY of a state; the numbers of more are estimates and say so. The size of history
is PostgreSQL's own estimate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.database.connections import DbConnection
from shared.outbox.columns import LIVE_STATUSES
from shared.outbox.messages import QUEUES

_Place = tuple[str, str]
"""A state and a queue."""
_Count = tuple[int, float]
"""How many messages, and for how long the oldest of them."""

RELAY_SILENT_SECONDS: Final = 20.0
"""A relay shows itself every five seconds after a pass that worked; one that was silent for so long does no work."""

COUNTED_EXACTLY: Final = 10_000
"""Of a state with more messages than that, the number and the age of the oldest are estimates."""

SAMPLED_PAGES: Final = 300
"""How much of the table an estimate reads, picked at random over all of it."""

_SELECT_LIVE: Final = f"""
    SELECT 'pending', queue, messages, oldest
      FROM unnest(ARRAY['critical', 'default']) AS q (queue),
           LATERAL (SELECT count(*) AS messages
                      FROM (SELECT FROM outbox WHERE status = 'pending' AND outbox.queue = q.queue
                             ORDER BY due_at, id LIMIT {COUNTED_EXACTLY + 1}) AS first) AS counted,
           LATERAL (SELECT (SELECT extract(epoch FROM clock_timestamp() - due_at)::float8
                              FROM outbox
                             WHERE status = 'pending' AND outbox.queue = q.queue
                               AND due_at > '-infinity' AND due_at < 'infinity'
                             ORDER BY due_at LIMIT 1) AS oldest) AS head
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
# Each part is served by the partial index of its state, in that index's order: asked for rows in any order, PostgreSQL
# may read the table from its beginning, past millions of messages in other states.

_SAMPLE_LIVE: Final = """
    SELECT status, queue, count(*),
           extract(epoch FROM clock_timestamp() - min(since) FILTER (WHERE isfinite(since)))::float8
      FROM (SELECT status, queue,
                   CASE status WHEN 'published' THEN published_at WHEN 'running' THEN claimed_at
                               WHEN 'dead' THEN coalesce(claimed_at, created_at) END AS since
              FROM outbox TABLESAMPLE SYSTEM (%s) REPEATABLE (0)) AS sample
     GROUP BY status, queue
"""
# The same pages each time: estimates that jump from scrape to scrape would look like messages that come and go.

_SELECT_DEPENDENCIES: Final = f"""
    SELECT (SELECT count(*) FROM outbox_relays
             WHERE seen_at > clock_timestamp() - make_interval(secs => {RELAY_SILENT_SECONDS})),
           (SELECT extract(epoch FROM clock_timestamp() - max(seen_at))::float8 FROM outbox_relays),
           (SELECT extract(epoch FROM clock_timestamp() - opened_at)::float8 FROM outbox_breaker WHERE name = 'mail'),
           (SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'outbox_finished'::regclass)
"""  # noqa: S608 - our own constant


@dataclass(frozen=True, slots=True)
class LiveState:
    """The messages of one queue in one state.

    Attributes:
        status: pending, published, running or dead.
        queue: critical or default.
        messages: how many; exactly, unless it is an estimate.
        oldest_seconds: how long the oldest of them has been so: pending counts from the moment it was due (0 when all
            are due later), published from the push, running and dead from the last claim. 0 when there is none.
        is_estimate: whether the messages were too many to be counted. Their number is then taken from a sample of the
            table, and is good to about a tenth; the oldest is at least that old. The oldest pending one is exact.

    """

    status: str
    queue: str
    messages: int
    oldest_seconds: float
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class DependencyStatus:
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


def read_live_states(connection: DbConnection) -> list[LiveState]:
    """Return every state of every queue, those without a message too. It takes the same time however many there are."""
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
    """Return what the messages depend on."""
    row = connection.execute(_SELECT_DEPENDENCIES).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    relays, seen, away, finished = row
    return DependencyStatus(int(relays), seen, away, int(finished or 0))


def _by_place(rows: Iterable[Sequence[Any]], scale: float = 1.0) -> dict[_Place, _Count]:
    return {(row[0], row[1]): (round(row[2] * scale), max(0.0, float(row[3] or 0.0))) for row in rows}


def _too_many(counted: Mapping[_Place, _Count]) -> set[_Place]:
    """Return the states that were not counted to their end: pending by queue, the others with both queues."""
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
        # Never fewer than were seen.
        messages = max(messages, _two_digits(sampled[0]))
        oldest = max(oldest, sampled[1])
    return LiveState(*place, messages, oldest, is_estimate)


def _two_digits(number: int) -> int:
    """Return the number as precisely as a sample knows it."""
    return round(number, 2 - len(str(number)))
