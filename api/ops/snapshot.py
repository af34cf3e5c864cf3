"""Read what the console shows. Stays fast however large the backlog and the history grow."""

from dataclasses import dataclass
from typing import Any, Final

from shared.database.connections import DbConnection
from shared.outbox.operations.mail_stats import WANTED_AT, MailStats, read_mail_stats
from shared.outbox.operations.stats import DependencyStatus, LiveState, read_dependency_status, read_live_states

RATE_SECONDS: Final = 60.0
PLOT_MINUTES: Final = 60
_SAMPLED_EACH_MINUTE: Final = 500
_READ_FOR_RATES: Final = 2000


@dataclass(frozen=True, slots=True)
class Rates:
    """How many messages entered each status per second: in the last minute, or recently where there were many."""

    appended: float
    published: float
    claimed: float
    done: float


@dataclass(frozen=True, slots=True)
class Minute:
    """The latency of the deliveries that ended in one minute.

    Attributes:
        ago: how many minutes ago it was.
        p50, p99: seconds from creation, or from the end of a limit's delay, to acknowledgement, of a sample.

    """

    ago: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The outbox at this moment, and the last hour."""

    live: list[LiveState]
    dependencies: DependencyStatus
    mails: MailStats
    rates: Rates
    minutes: list[Minute]

    def messages(self, state: str) -> int:
        """Return the number of messages with a status, in both queues."""
        return sum(each.messages for each in self.live if each.status == state)

    def is_estimate(self, state: str) -> bool:
        """Return whether there were too many of them to count."""
        return any(each.is_estimate for each in self.live if each.status == state)

    def oldest_seconds(self, state: str) -> float:
        """Return how long the oldest message has had a status."""
        return max(each.oldest_seconds for each in self.live if each.status == state)


def read_snapshot(connection: DbConnection) -> Snapshot:
    """Read everything once."""
    return Snapshot(
        live=read_live_states(connection),
        dependencies=read_dependency_status(connection),
        mails=read_mail_stats(connection),
        rates=_rates(connection),
        minutes=_last_hour(connection),
    )


def _rates(connection: DbConnection) -> Rates:
    """Return the rates, from recently finished and unfinished messages.

    The newest of each kind are read. Where these do not cover the last minute, the rate is that of the time that they
    cover.
    """
    # The newest published messages are approximately those with the latest leases.
    return Rates(
        *_one_row(
            connection,
            """
            WITH present AS (
                SELECT now() - make_interval(secs => %(seconds)s) AS earliest
            ), newest AS (
                (SELECT 'finished' AS kind, finished_at AS read_at, created_at AS appended_at,
                        published_at, claimed_at, CASE status WHEN 'done' THEN finished_at END AS done_at
                   FROM outbox_finished
                  WHERE finished_at > (SELECT earliest FROM present)
                  ORDER BY finished_at DESC LIMIT %(read)s)
                UNION ALL
                (SELECT 'appended', created_at, created_at, NULL, NULL, NULL
                   FROM outbox ORDER BY id DESC LIMIT %(read)s)
                UNION ALL
                (SELECT 'published', published_at, NULL, published_at, NULL, NULL
                   FROM outbox WHERE status = 'published' ORDER BY broker_epoch DESC, lease_until DESC LIMIT %(read)s)
                UNION ALL
                (SELECT 'claimed', claimed_at, NULL, NULL, claimed_at, NULL
                   FROM outbox WHERE status = 'running' ORDER BY lease_until DESC LIMIT %(read)s)
            ), spans AS (
                SELECT kind, CASE WHEN count(*) < %(read)s THEN min(earliest)
                                  ELSE least(now(), greatest(min(read_at), min(earliest))) END AS since
                  FROM newest, present GROUP BY kind
            ), weighed AS (
                SELECT newest.*, since, 1 / greatest(1, extract(epoch FROM now() - since))::float8 AS each
                  FROM newest JOIN spans USING (kind)
            )
            SELECT coalesce(sum(each) FILTER (WHERE appended_at > since), 0),
                   coalesce(sum(each) FILTER (WHERE published_at > since), 0),
                   coalesce(sum(each) FILTER (WHERE claimed_at > since), 0),
                   coalesce(sum(each) FILTER (WHERE done_at >= since), 0)
              FROM weighed
            """,
            {"seconds": RATE_SECONDS, "read": _READ_FOR_RATES},
        )
    )


def _last_hour(connection: DbConnection) -> list[Minute]:
    """Return the latency of a sample of each minute, through the index on finished_at."""
    rows = connection.execute(
        f"""
        SELECT ago, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds),
               percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds)
          FROM generate_series(0, %(minutes)s - 1) AS ago,
               LATERAL (SELECT extract(epoch FROM finished_at - {WANTED_AT})::float8 AS seconds
                          FROM outbox_finished
                         WHERE finished_at > now() - make_interval(mins => ago + 1)
                           AND finished_at <= now() - make_interval(mins => ago)
                           AND status = 'done' AND isfinite(created_at)
                         ORDER BY finished_at
                         LIMIT %(sampled)s) AS sample
         GROUP BY ago
         ORDER BY ago DESC
        """,  # noqa: S608 - an expression of our own
        {"minutes": PLOT_MINUTES, "sampled": _SAMPLED_EACH_MINUTE},
    ).fetchall()
    return [Minute(*row) for row in rows]


def _one_row(connection: DbConnection, query: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
    row = connection.execute(query, values).fetchone()
    assert row is not None  # noqa: S101 - each of these queries has one row
    return row
