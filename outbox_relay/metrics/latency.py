"""The latency of messages as histograms, read from the newest end of history at each scrape.

Publishing and sending measure nothing. PostgreSQL counts the messages that finished since the previous scrape, with the
index on finished_at. Every relay counts all messages: take quantiles over all relays together, and a rate over one.
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
from shared.outbox.messages import QUEUES
from shared.outbox.operations.latency import LATENCY_COLUMNS

SETTLED_SECONDS: Final = 6.0
"""A finished row becomes visible after its finished_at, by at most the 5 s of an idle transaction."""

LONGEST_WINDOW_SECONDS: Final = 300.0
"""After a longer time without a scrape, older messages are left out, so that no scrape reads many rows."""

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

    def __init__(self, connect: Callable[[], DbConnection], *, settled_seconds: float = SETTLED_SECONDS) -> None:
        self._connect = connect
        self._settled_seconds = settled_seconds
        self._lock = threading.Lock()
        self._counted_until: datetime | None = None
        self._counts = {
            (name, queue): [0] * (len(edges) + 1) for name, (_, edges) in _HISTOGRAMS.items() for queue in QUEUES
        }
        self._sums = dict.fromkeys(self._counts, 0.0)

    def describe(self) -> list[Metric]:
        """Return nothing: registering the collector must not read from PostgreSQL."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the histograms; while PostgreSQL is unreachable they do not change."""
        with self._lock:
            try:
                with self._connect() as connection, read_transaction(connection, _STATEMENT_SECONDS):
                    self._count(connection)
            except psycopg.Error:
                pass  # outbox_postgresql_up shows it
            yield from [self._family(name) for name in _HISTOGRAMS]

    def _count(self, connection: DbConnection) -> None:
        since, until = _window(connection, self._counted_until, self._settled_seconds)
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


def _window(
    connection: DbConnection, counted_until: datetime | None, settled_seconds: float
) -> tuple[datetime, datetime]:
    """Return the time range to count; at the first scrape it is empty."""
    row = connection.execute(
        """
        SELECT greatest(%(since)s::timestamptz, settled - make_interval(secs => %(longest)s)), settled
          FROM (SELECT clock_timestamp() - make_interval(secs => %(settled)s) AS settled) AS present
        """,
        {
            "since": counted_until,
            "longest": LONGEST_WINDOW_SECONDS,
            "settled": settled_seconds,
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - a SELECT of one row
    since, until = row
    return (until if counted_until is None else since), until


def _finished_between(connection: DbConnection, since: datetime, until: datetime) -> list[tuple[Any, ...]]:
    """Return counts and sums of done messages by histogram, queue and bucket; the first bucket is 0."""
    # width_bucket counts a value at an edge above it, Prometheus below: half an attempt is subtracted, because attempts
    # are whole numbers.
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
