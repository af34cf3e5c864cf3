"""How long messages take, as histograms: read at each scrape from the newest end of history.

The hot path measures nothing. What was finished since the scrape before is counted by PostgreSQL, through the index on
the time of the finish. Every relay counts all messages, whoever sent them: quantiles may be taken over all relays
together, a rate over one of them.
"""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import psycopg
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.database.connections import DbConnection
from shared.database.read_transaction import read_transaction
from shared.outbox.latency import LATENCY_COLUMNS
from shared.outbox.messages import QUEUES

SETTLED_SECONDS: Final = 6.0
"""A finish is visible a moment after the time that it bears; a transaction that is silent for 5 s is ended."""

LONGEST_WINDOW_SECONDS: Final = 300.0
"""After a longer time without a scrape the messages in between are left out, so that no scrape reads a big table."""

_STATEMENT_SECONDS: Final = 4.0
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)
_ATTEMPTS: Final = (1.0, 2.0, 3.0, 5.0, 11.0)
_HISTOGRAMS: Final = {
    "outbox_publish_seconds": ("From the moment a message was due to its last push into Redis", _SECONDS),
    "outbox_delivery_seconds": (
        "From a message's creation, or the end of its wait for a limit, to its acknowledgement, retries included",
        _SECONDS,
    ),
    "outbox_attempts_per_message": ("Attempts that a message took until it was done", _ATTEMPTS),
}


class LatencyCollector(Collector):
    """Counts done messages from the first scrape on."""

    def __init__(self, connect: Callable[[], DbConnection]) -> None:
        """Keep how to reach PostgreSQL."""
        self._connect = connect
        self._lock = threading.Lock()
        self._counted_until: datetime | None = None
        self._counts = {
            (name, queue): [0] * (len(edges) + 1) for name, (_, edges) in _HISTOGRAMS.items() for queue in QUEUES
        }
        self._sums = dict.fromkeys(self._counts, 0.0)

    def describe(self) -> list[Metric]:
        """Name nothing in advance: registering shall not look at PostgreSQL."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the histograms; while PostgreSQL is away they stand still."""
        with self._lock:
            try:
                with self._connect() as connection, read_transaction(connection, _STATEMENT_SECONDS):
                    self._count(connection)
            except psycopg.Error:
                pass  # told by outbox_postgresql_up
            yield from [self._family(name) for name in _HISTOGRAMS]

    def _count(self, connection: DbConnection) -> None:
        since, until = _window(connection, self._counted_until)
        for name, queue, bucket, count, total in _finished_between(connection, since, until):
            self._counts[name, queue][bucket] += count
            self._sums[name, queue] += total
        self._counted_until = until

    def _family(self, name: str) -> HistogramMetricFamily:
        documentation, edges = _HISTOGRAMS[name]
        family = HistogramMetricFamily(name, documentation, labels=["queue"])
        for queue in QUEUES:
            total = 0
            buckets: list[tuple[str, float]] = []
            for edge, count in zip((*edges, "+Inf"), self._counts[name, queue], strict=True):
                total += count
                buckets.append((str(edge), total))
            family.add_metric([queue], buckets, self._sums[name, queue])
        return family


def _window(connection: DbConnection, counted_until: datetime | None) -> tuple[datetime, datetime]:
    """Give the time range to count; at the first scrape it is empty."""
    row = connection.execute(
        """
        SELECT greatest(%(since)s::timestamptz, settled - make_interval(secs => %(longest)s)), settled
          FROM (SELECT clock_timestamp() - make_interval(secs => %(settled)s) AS settled) AS present
        """,
        {
            "since": counted_until,
            "longest": LONGEST_WINDOW_SECONDS,
            "settled": SETTLED_SECONDS,
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - a SELECT of one row
    since, until = row
    return (until if counted_until is None else since), until


def _finished_between(connection: DbConnection, since: datetime, until: datetime) -> list[tuple[Any, ...]]:
    """Count done messages by histogram, queue and bucket; the first bucket has the number 0."""
    # width_bucket puts a value that stands on an edge above it, Prometheus below: for attempts, which are whole
    # numbers, half of one is taken off.
    return connection.execute(
        f"""
        WITH fresh AS MATERIALIZED (
            SELECT queue, attempt,
                   {LATENCY_COLUMNS}
              FROM outbox_finished
             WHERE status = 'done' AND finished_at > %(since)s AND finished_at <= %(until)s
        )
        SELECT 'outbox_publish_seconds', queue, width_bucket(publish, %(seconds)s::float8[]), count(*), sum(publish)
          FROM fresh WHERE publish IS NOT NULL GROUP BY 2, 3
        UNION ALL
        SELECT 'outbox_delivery_seconds', queue, width_bucket(delivery, %(seconds)s::float8[]), count(*), sum(delivery)
          FROM fresh WHERE delivery IS NOT NULL GROUP BY 2, 3
        UNION ALL
        SELECT 'outbox_attempts_per_message', queue, width_bucket(attempt - 0.5::float8, %(attempts)s::float8[]),
               count(*), sum(attempt)
          FROM fresh GROUP BY 2, 3
        """,  # noqa: S608 - two expressions of our own
        {"since": since, "until": until, "seconds": list(_SECONDS), "attempts": list(_ATTEMPTS)},
    ).fetchall()
