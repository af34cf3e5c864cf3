"""The statement that finds the destinations with pending messages, each with its oldest message.

It executes one statement and locks nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import LARGEST_ID

SLOW_SECONDS: Final = 30.0
"""How long a destination counts as slow after a worker saw a send there that took longer than a second."""

NO_DESTINATION: Final = ""
"""Stands for the messages that name no destination. It is the smallest name."""

AFTER_ALL_NAMES: Final = "~"
"""Greater than each name of a destination."""


class Source(NamedTuple):
    """A queue and a destination. Its messages are taken in order of their due time."""

    queue: str
    destination: str


class Cursor(NamedTuple):
    """A position among the pending messages of a source: only those behind this due time and id are read."""

    due_at: str
    """As PostgreSQL wrote it, to the microsecond."""
    id: int = 0


CURSOR_AT_START: Final = Cursor("-infinity")
"""The cursor behind which every pending message is."""


class Range(NamedTuple):
    """The destinations of a queue whose names are between two names."""

    queue: str
    after: str
    before: str


class Head(NamedTuple):
    """The oldest pending message of a source behind its cursor, and the state of the destination.

    Attributes:
        source: the queue and the destination.
        cursor: the position before the message.
        due: when it is due; times are seconds since the epoch, and may be infinite.
        range_number: the index of the range in which the source was found; None for one that was asked for.
        is_open: whether the breaker is open.
        is_paused: whether the destination is paused.
        probe_at: when the next probe is due, if the breaker is open.
        max_per_second: its limit.
        max_in_flight: how many messages may be in hand at a time.
        is_slow: whether a send there recently took longer than a second.

    """

    source: Source
    cursor: Cursor
    due: float
    range_number: int | None
    is_open: bool
    is_paused: bool
    probe_at: float | None
    max_per_second: float | None
    max_in_flight: int | None
    is_slow: bool

    @property
    def is_blocked(self) -> bool:
        """Whether no message may be taken, except as a probe."""
        return self.is_open or self.is_paused

    @property
    def has_window(self) -> bool:
        """Whether few messages of the source may be published at a time."""
        return self.is_slow or self.max_per_second is not None or self.max_in_flight is not None


class Discovered(NamedTuple):
    """What is pending at one moment.

    Attributes:
        now: when the transaction began, in seconds since the epoch.
        late: the cursor at some seconds before that.
        heads: the head of each source that has pending messages, among those that were looked at.

    """

    now: float
    late: Cursor
    heads: Sequence[Head]


@own_transaction
def discover(
    connection: DbConnection,
    cursors: Mapping[Source, Cursor],
    ranges: Sequence[Range] = (),
    limit: int = 1000,
    late_seconds: float = 0,
) -> Discovered:
    """Return the heads of these sources behind their cursors, and of up to `limit` other sources in the ranges.

    Within a range each step reads the index once for the next name, however many messages a source has. But it also
    reads the index entries of published rows, which stay until a vacuum, of the sources that it finds.
    """
    # Both bounds and the order name all columns of outbox_due_idx: no other index has this order. Subqueries read the
    # arrays: PostgreSQL would else see their lengths, find a plan for these cheaper than one for all, and plan the
    # statement again at each execution. The state is read by one look-up for each head, however many rows there are.
    rows = connection.execute(
        """
        WITH RECURSIVE found AS (
            SELECT span.number, span.queue, span.before, head.name, head.due_at, head.id
              FROM unnest((SELECT %(range_queues)s::text[]), (SELECT %(after)s::text[]), (SELECT %(before)s::text[]))
                       WITH ORDINALITY AS span (queue, after, before, number),
                   LATERAL (
                       SELECT coalesce(destination, '') AS name, due_at, id
                         FROM outbox
                        WHERE status = 'pending'
                          AND (queue, coalesce(destination, '')) > (span.queue, span.after)
                          AND (queue, coalesce(destination, '')) < (span.queue, span.before)
                        ORDER BY queue, coalesce(destination, ''), due_at, id
                        LIMIT 1
                   ) AS head
            UNION ALL
            SELECT found.number, found.queue, found.before, head.name, head.due_at, head.id
              FROM found,
                   LATERAL (
                       SELECT coalesce(destination, '') AS name, due_at, id
                         FROM outbox
                        WHERE status = 'pending'
                          AND (queue, coalesce(destination, '')) > (found.queue, found.name)
                          AND (queue, coalesce(destination, '')) < (found.queue, found.before)
                        ORDER BY queue, coalesce(destination, ''), due_at, id
                        LIMIT 1
                   ) AS head
        ), heads AS (
            SELECT known.queue, known.name, head.due_at, head.id, NULL::bigint AS number
              FROM unnest((SELECT %(queues)s::text[]), (SELECT %(names)s::text[]),
                          (SELECT %(due_ats)s::timestamptz[]), (SELECT %(ids)s::bigint[]))
                       AS known (queue, name, due_at, id),
                   LATERAL (
                       SELECT due_at, id
                         FROM outbox
                        WHERE status = 'pending'
                          AND (queue, coalesce(destination, ''), due_at, id)
                            > (known.queue, known.name, known.due_at, known.id)
                          AND (queue, coalesce(destination, ''), due_at, id)
                           <= (known.queue, known.name, timestamptz 'infinity', %(largest)s::bigint)
                        ORDER BY queue, coalesce(destination, ''), due_at, id
                        LIMIT 1
                   ) AS head
            UNION ALL
            (SELECT queue, name, due_at, id, number FROM found LIMIT %(limit)s)
        )
        SELECT heads.queue, heads.name, heads.due_at::text, heads.id - 1, extract(epoch FROM heads.due_at)::float8,
               heads.number - 1, d.opened_at IS NOT NULL, d.paused_at IS NOT NULL,
               extract(epoch FROM d.probe_at)::float8, d.max_per_second, d.max_in_flight,
               coalesce(d.slow_at > now() - make_interval(secs => %(slow)s), false)
          FROM heads
          LEFT JOIN LATERAL (SELECT * FROM outbox_destinations WHERE name = heads.name LIMIT 1) AS d ON true
        UNION ALL
        SELECT NULL, NULL, (now() - make_interval(secs => %(late)s))::text, NULL, extract(epoch FROM now())::float8,
               NULL, false, false, NULL, NULL, NULL, false
        """,
        {
            "queues": text_array([source.queue for source in cursors]),
            "names": text_array([source.destination for source in cursors]),
            "due_ats": text_array([cursor.due_at for cursor in cursors.values()]),
            "ids": number_array([cursor.id for cursor in cursors.values()]),
            "range_queues": text_array([each.queue for each in ranges]),
            "after": text_array([each.after for each in ranges]),
            "before": text_array([each.before for each in ranges]),
            "largest": LARGEST_ID,
            "limit": limit,
            "slow": SLOW_SECONDS,
            "late": late_seconds,
        },
    ).fetchall()
    _, _, late, _, now, *_ = rows.pop()
    return Discovered(
        now=now,
        late=Cursor(late),
        heads=[
            Head(Source(queue, name), Cursor(due_at, id_), due, *rest) for queue, name, due_at, id_, due, *rest in rows
        ],
    )


def number_array(numbers: Sequence[int]) -> str:
    """Return PostgreSQL's text form of an array. psycopg's own checks each element for quotes, at 1.5 us each."""
    return "{" + ",".join(map(str, numbers)) + "}"


def text_array(texts: Sequence[str]) -> str:
    """Return the same for texts without quotes and backslashes: names of queues and destinations, and times."""
    return '{"' + '","'.join(texts) + '"}' if texts else "{}"
