"""What the console shows, read so that it stays fast however long the history grows."""

from dataclasses import dataclass
from typing import Any, Final

from shared.database import DbConnection
from shared.figures import SELECT_LIVE, SELECT_SURROUNDINGS, LiveState, Surroundings, live_states, surroundings

RATE_SECONDS: Final = 60.0
PLOT_MINUTES: Final = 60
_SAMPLED_EACH_MINUTE: Final = 500


@dataclass(frozen=True, slots=True)
class Rates:
    """How many messages passed each station within the last minute, each second."""

    appended: float
    pushed: float
    claimed: float
    done: float


@dataclass(frozen=True, slots=True)
class Minute:
    """What deliveries took that ended in one minute.

    Attributes:
        ago: how many minutes ago it was.
        p50, p99: seconds from creation to acknowledgement, of a sample.

    """

    ago: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Glance:
    """The road at this moment, and the last hour."""

    live: list[LiveState]
    surroundings: Surroundings
    rates: Rates
    minutes: list[Minute]

    def messages(self, state: str) -> int:
        """Count the messages in a state, in both queues."""
        return sum(each.messages for each in self.live if each.state == state)

    def oldest_seconds(self, state: str) -> float:
        """Tell how long the oldest has been in a state."""
        return max(each.oldest_seconds for each in self.live if each.state == state)


def look(connection: DbConnection) -> Glance:
    """Look at everything once."""
    return Glance(
        live=live_states(connection.execute(SELECT_LIVE).fetchall()),
        surroundings=surroundings(_one_row(connection, SELECT_SURROUNDINGS)),
        rates=_rates(connection),
        minutes=_last_hour(connection),
    )


def _rates(connection: DbConnection) -> Rates:
    """Count who passed each station: the unfinished, and those that finished within the time."""
    counts = _one_row(
        connection,
        """
        WITH present AS (SELECT now() - make_interval(secs => %(seconds)s) AS since), recent AS (
            SELECT created_at, published_at, claimed_at, finished_at, status
              FROM outbox_finished WHERE finished_at > (SELECT since FROM present)
            UNION ALL
            SELECT created_at, published_at, claimed_at, finished_at, status FROM outbox
        )
        SELECT count(*) FILTER (WHERE created_at > since), count(*) FILTER (WHERE published_at > since),
               count(*) FILTER (WHERE claimed_at > since), count(*) FILTER (WHERE status = 'done')
          FROM recent, present
        """,
        {"seconds": RATE_SECONDS},
    )
    return Rates(*(count / RATE_SECONDS for count in counts))


def _last_hour(connection: DbConnection) -> list[Minute]:
    """Measure a sample of each minute, through the index on the time of the finish."""
    rows = connection.execute(
        """
        SELECT ago, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds),
               percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds)
          FROM generate_series(0, %(minutes)s - 1) AS ago,
               LATERAL (SELECT extract(epoch FROM finished_at - created_at)::float8 AS seconds
                          FROM outbox_finished
                         WHERE finished_at > now() - make_interval(mins => ago + 1)
                           AND finished_at <= now() - make_interval(mins => ago)
                           AND status = 'done' AND isfinite(created_at)
                         ORDER BY finished_at
                         LIMIT %(sampled)s) AS sample
         GROUP BY ago
         ORDER BY ago DESC
        """,
        {"minutes": PLOT_MINUTES, "sampled": _SAMPLED_EACH_MINUTE},
    ).fetchall()
    return [Minute(*row) for row in rows]


def _one_row(connection: DbConnection, query: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
    row = connection.execute(query, values).fetchone()
    assert row is not None  # noqa: S101 - each of these queries has one row
    return row
