"""The statements that publish: which pending rows are due, and that their jobs were pushed to Redis.

Each function executes one statement, whose conditions make it safe to run concurrently with any other.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import LARGEST_ID
from shared.outbox.discovery import CURSOR_AT_START, Cursor, Source, number_array, text_array
from shared.outbox.messages import MAIL, QUEUES, JobRef

PROBES_OUT: Final = 10
"""While so many probes wait for their result, no other is published, except that of the mail server: a probe is pushed
in front of all other jobs, and an unavailable server may keep a worker waiting."""


class Wanted(NamedTuple):
    """A source that messages are taken from: those behind the cursor, and how many at most."""

    source: Source
    cursor: Cursor
    places: int


class Taken(NamedTuple):
    """The messages that were taken from a source, the oldest first, and the cursor at the last one."""

    wanted: Wanted
    jobs: Sequence[JobRef]
    cursor: Cursor

    @property
    def is_full(self) -> bool:
        """Whether more messages of the source may be due."""
        return len(self.jobs) == self.wanted.places


class Probe(NamedTuple):
    """The message that probes a destination."""

    destination: str
    job: JobRef


def from_start(queue: str, destination: str, places: int) -> Wanted:
    """Return what takes the oldest messages of a source."""
    return Wanted(Source(queue, destination), CURSOR_AT_START, places)


def take_batch(connection: DbConnection, wanted: Sequence[Wanted], due_before: float | None = None) -> list[Taken]:
    """Lock due messages of these sources, the oldest of each first, and return those of each that has any.

    SKIP LOCKED lets relays work side by side. From a destination whose breaker is open, or that is paused, nothing is
    taken: see take_probe.

    Args:
        connection: inside a transaction; the locks last until its end.
        wanted: each source, where to begin, and the largest number of rows.
        due_before: seconds since the epoch; by default everything that is due now.

    """
    # Both bounds and the order name all columns of outbox_due_idx: no other index has this order. Subqueries read the
    # arrays, as in discover.
    rows = connection.execute(
        """
        WITH wanted AS MATERIALIZED (
            SELECT number, queue, name, due_at, id, places
              FROM unnest((SELECT %(queues)s::text[]), (SELECT %(names)s::text[]),
                          (SELECT %(due_ats)s::timestamptz[]), (SELECT %(ids)s::bigint[]),
                          (SELECT %(places)s::integer[]))
                       WITH ORDINALITY AS source (queue, name, due_at, id, places, number)
             -- A look-up for each, which no plan makes a join with all destinations.
             WHERE (SELECT d.opened_at IS NULL AND d.paused_at IS NULL
                      FROM outbox_destinations AS d WHERE d.name = source.name) IS NOT FALSE
        )
        SELECT number - 1, taken.ids, taken.generations, taken.last_due_at
          FROM wanted,
               LATERAL (
                   SELECT array_agg(id)::text AS ids, array_agg(generation)::text AS generations,
                          max(due_at)::text AS last_due_at
                     FROM (
                         SELECT id, generation, due_at
                           FROM outbox
                          WHERE status = 'pending' AND due_at <= coalesce(to_timestamp(%(before)s), now())
                            AND (queue, coalesce(destination, ''), due_at, id)
                              > (wanted.queue, wanted.name, wanted.due_at, wanted.id)
                            AND (queue, coalesce(destination, ''), due_at, id)
                             <= (wanted.queue, wanted.name, coalesce(to_timestamp(%(before)s), now()),
                                 %(largest)s::bigint)
                          ORDER BY queue, coalesce(destination, ''), due_at, id
                          LIMIT wanted.places
                            FOR UPDATE SKIP LOCKED
                     ) AS due
               ) AS taken
         WHERE taken.ids IS NOT NULL
        """,
        {
            "before": due_before,
            "queues": text_array([each.source.queue for each in wanted]),
            "names": text_array([each.source.destination for each in wanted]),
            "due_ats": text_array([each.cursor.due_at for each in wanted]),
            "ids": number_array([each.cursor.id for each in wanted]),
            "places": number_array([each.places for each in wanted]),
            "largest": LARGEST_ID,
        },
    ).fetchall()
    return [_taken(wanted[number], *rest) for number, *rest in rows]


def _taken(wanted: Wanted, ids: str, generations: str, last_due_at: str) -> Taken:
    # The arrays are in PostgreSQL's text form.
    numbers = ids[1:-1].split(",")
    queue = wanted.source.queue
    jobs = [
        JobRef(int(id_), int(generation), queue)
        for id_, generation in zip(numbers, generations[1:-1].split(","), strict=True)
    ]
    return Taken(wanted, jobs, Cursor(last_due_at, jobs[-1].id))


def reserved_for_default(size: int) -> int:
    """Return how many rows of a batch are kept free for default when it has waited for STARVED_SECONDS."""
    return max(1, size // 10) if size > 1 else 0


def statuses_among(connection: DbConnection, ids: Collection[int]) -> dict[int, str]:
    """Return the statuses of those of the messages that are not finished."""
    rows = connection.execute(
        "SELECT id, status FROM outbox WHERE id = ANY(%s::bigint[])", [number_array(list(ids))]
    ).fetchall()
    return dict(rows)


def take_probe(
    connection: DbConnection, destinations: Sequence[str] = (MAIL,), queues: Sequence[str] = QUEUES
) -> list[Probe]:
    """Lock the message that is sent next to each of these unavailable destinations whose probe is due.

    It is the message of these queues that has been due for the longest time. A probe that meets the outage is released
    with a new due time, so that messages take turns and none of them blocks the others. If the last probe had no result
    in time, perhaps because nobody serves its queue, a message of another queue comes first.

    The destination's row is locked first, so that only one of several relays sends the probe. A paused destination is
    not probed.
    """
    rows = connection.execute(
        """
        WITH open AS MATERIALIZED (
            SELECT name, (SELECT queue FROM outbox WHERE outbox.id = d.probe_id) AS silent_queue
              FROM outbox_destinations AS d
             WHERE name = ANY(%(names)s::text[]) AND opened_at IS NOT NULL AND paused_at IS NULL
               AND probe_at <= clock_timestamp()
               AND (name = %(mail)s
                    OR (SELECT count(*)
                          FROM (SELECT FROM outbox_destinations AS out
                                 WHERE out.probe_id IS NOT NULL AND out.probe_at > (SELECT clock_timestamp())
                                 LIMIT %(probes)s) AS probes) < %(probes)s)
             ORDER BY name <> %(mail)s, probe_at
             LIMIT %(probes)s
               FOR UPDATE SKIP LOCKED
        )
        SELECT open.name, head.id, head.generation, head.queue
          FROM open,
               LATERAL (
                   SELECT due.id, due.generation, due.queue
                     FROM unnest(%(queues)s::text[]) AS wanted (queue),
                          LATERAL (
                              SELECT id, generation, queue, due_at
                                FROM outbox
                               WHERE status = 'pending' AND due_at <= now()
                                 AND (queue, coalesce(destination, ''), due_at, id)
                                   > (wanted.queue, open.name, timestamptz '-infinity', 0)
                                 AND (queue, coalesce(destination, ''), due_at, id)
                                  <= (wanted.queue, open.name, now(), %(largest)s::bigint)
                               ORDER BY queue, coalesce(destination, ''), due_at, id
                               LIMIT 1
                                 FOR UPDATE SKIP LOCKED
                          ) AS due
                    ORDER BY due.queue = open.silent_queue NULLS FIRST, due.due_at, due.id
                    LIMIT 1
               ) AS head
        """,
        {
            "names": text_array(destinations),
            "queues": text_array(queues),
            "mail": MAIL,
            "probes": PROBES_OUT,
            "largest": LARGEST_ID,
        },
    ).fetchall()
    return [Probe(name, JobRef(*job)) for name, *job in rows]


def mark_probe(connection: DbConnection, probes: Sequence[Probe], timeout_seconds: float) -> None:
    """Record which messages are probes. If a result is not known after `timeout_seconds`, another one is sent."""
    connection.execute(
        """
        UPDATE outbox_destinations AS d
           SET probe_id = probe.id, probe_at = clock_timestamp() + make_interval(secs => %s)
          FROM unnest(%s::text[], %s::bigint[]) AS probe (name, id)
         WHERE d.name = probe.name AND d.opened_at IS NOT NULL
        """,
        [
            timeout_seconds,
            text_array([probe.destination for probe in probes]),
            number_array([probe.job.id for probe in probes]),
        ],
    )


def mark_published(connection: DbConnection, ids: Sequence[int], epoch: str, lease_seconds: float) -> int:
    """Record that the jobs of these pending rows were pushed, and return the number of rows."""
    # In this form of the condition no plan reads outbox_due_idx. One that was made while few messages were pending
    # would read all entries of that index, also those of blocked destinations.
    return connection.execute(
        """
        UPDATE outbox
           SET status = 'published', broker_epoch = %s, published_at = clock_timestamp(),
               lease_until = clock_timestamp() + make_interval(secs => %s)
         WHERE id = ANY(%s::bigint[]) AND status || '' = 'pending'
        """,
        [epoch, lease_seconds, number_array(ids)],
    ).rowcount


@own_transaction
def clock(connection: DbConnection) -> float:
    """Return the database's time in seconds since the epoch."""
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return float(row[0])
