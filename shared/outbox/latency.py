"""How long messages took lately, and how many were finished: read from the newest end of history."""

from dataclasses import dataclass
from typing import Final

from shared.database.connections import own_transaction
from shared.outbox.mail_stats import WANTED_AT
from shared.outbox.publishing import DbConnection
from shared.outbox.times import distance

_PUBLISHED: Final = "coalesce(published_at, claimed_at)"
LAGS: Final = f"""
    {distance(f"greatest({_PUBLISHED}, due_at)", "due_at")} AS publish,
    {distance("finished_at", WANTED_AT)} AS delivery
"""
"""The lags of a row of outbox_finished in seconds; NULL where a time without end was given."""

_ROWS_READ: Final = 100_000
"""The newest of the window: a figure of them is one of the window, if it says how long they took."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What the messages of one queue took that were done within the window.

    Attributes:
        queue: critical or default.
        done: how many were done.
        publish_p50, publish_p99: seconds from the moment a message was due to its last push into Redis.
        delivery_p50, delivery_p99: seconds from a message's creation to its acknowledgement, retries included. What
            waited for a limit counts from the end of that.

    """

    queue: str
    done: int
    publish_p50: float
    publish_p99: float
    delivery_p50: float
    delivery_p99: float


@own_transaction
def recent_lags(connection: DbConnection, window_seconds: float) -> tuple[list[Lag], float]:
    """Measure the messages that were done within the last `window_seconds`, by queue, or the newest of them.

    Returns the lags, and the seconds in which the messages that were measured were done.
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
                       {LAGS}
                  FROM outbox_finished
                 WHERE status = 'done' AND finished_at > now() - make_interval(secs => %s)
                 ORDER BY finished_at DESC
                 LIMIT %s) AS recent
         GROUP BY queue
         ORDER BY queue
        """,  # noqa: S608 - two expressions of our own
        [window_seconds, _ROWS_READ],
    ).fetchall()
    lags = [Lag(queue, *figures) for queue, _, *figures in rows]
    is_all = sum(lag.done for lag in lags) < _ROWS_READ
    return lags, window_seconds if is_all else max(1.0, *(oldest for _, oldest, *_ in rows))
