"""Latency and number of the messages that were done lately, read from the newest end of history."""

from dataclasses import dataclass
from typing import Final

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import distance
from shared.outbox.operations.mail_stats import WANTED_AT

_PUBLISHED: Final = "coalesce(published_at, claimed_at)"
LATENCY_COLUMNS: Final = f"""
    {distance(f"greatest({_PUBLISHED}, due_at)", "due_at")} AS publish,
    {distance("finished_at", WANTED_AT)} AS delivery
"""
"""The latencies of a row of outbox_finished in seconds; NULL where one of the two times is infinite."""

ROWS_READ: Final = 100_000
"""The newest rows of the window. The window that was measured is returned with the result."""


@dataclass(frozen=True, slots=True)
class QueueLatency:
    """How long the messages of one queue took that were done within the window.

    Attributes:
        queue: critical or default.
        done: the number of messages that were done.
        publish_p50, publish_p99: seconds from the moment a message was due to its last push into Redis.
        delivery_p50, delivery_p99: seconds from a message's creation to its acknowledgement, retries included. For a
            mail that waited for a limit, from the end of that wait.

    """

    queue: str
    done: int
    publish_p50: float
    publish_p99: float
    delivery_p50: float
    delivery_p99: float


@own_transaction
def read_latency(
    connection: DbConnection, window_seconds: float, *, rows_read: int = ROWS_READ
) -> tuple[list[QueueLatency], float]:
    """Return the latency of each queue, and the length in seconds of the window that was measured.

    The window is the last `window_seconds`; it is shorter when more than `rows_read` messages were done in it.
    """
    # now() and not clock_timestamp(): an index is searched only for what cannot change during the statement.
    rows = connection.execute(
        f"""
        SELECT queue, extract(epoch FROM now() - min(finished_at))::float8, count(*),
               coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY publish), 0),
               coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY publish), 0),
               coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY delivery), 0),
               coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY delivery), 0)
          FROM (SELECT queue, finished_at,
                       {LATENCY_COLUMNS}
                  FROM outbox_finished
                 WHERE status = 'done' AND finished_at > now() - make_interval(secs => %s)
                 ORDER BY finished_at DESC
                 LIMIT %s) AS recent
         GROUP BY queue
         ORDER BY queue
        """,  # noqa: S608 - two expressions of our own
        [window_seconds, rows_read],
    ).fetchall()
    latency = [QueueLatency(queue, *columns) for queue, _, *columns in rows]
    is_all = sum(each.done for each in latency) < rows_read
    return latency, window_seconds if is_all else max(1.0, *(oldest for _, oldest, *_ in rows))
