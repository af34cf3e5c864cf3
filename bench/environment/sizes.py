"""The size of a run: full, quick, or so small that it only tries the code."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a run.

    Attributes:
        repeats: rounds of each comparison.
        relay_rows: pending rows that a relay finds.
        relay_seconds: how long it may work on them; slow relays do not finish.
        consume_seconds: about how long a consumer works in one run.
        latency_samples: commits in one run of the latency comparison.
        write_seconds: how long signups are written in one run.
        finished_rows: the history that must not slow anything down.
        backlog_rows: the largest backlog.
        churn_rounds: rounds of messages beside an old snapshot.
        churn_rows: messages in such a round.
        size_rounds: rounds of messages after which tables and indexes are measured.
        size_rows: messages in such a round.
        burst_messages: messages of the burst.
        whole_way_messages: messages that are appended, sent and acknowledged before the tables are measured.
        waiting_webhooks: webhooks that wait for an endpoint that is slow.
        limited_jobs: messages that wait for a destination with a limit.
        limit_seconds: for how long they are counted.

    """

    repeats: int
    relay_rows: int
    relay_seconds: float
    consume_seconds: float
    latency_samples: int
    write_seconds: float
    finished_rows: int
    backlog_rows: int
    churn_rounds: int
    churn_rows: int
    size_rounds: int
    size_rows: int
    burst_messages: int
    whole_way_messages: int
    waiting_webhooks: int
    limited_jobs: int
    limit_seconds: float


FULL: Final = Sizes(
    repeats=3,
    relay_rows=100_000,
    relay_seconds=5.0,
    consume_seconds=8.0,
    latency_samples=500,
    write_seconds=4.0,
    finished_rows=10_000_000,
    backlog_rows=1_000_000,
    churn_rounds=20,
    churn_rows=60_000,
    size_rounds=10,
    size_rows=1_000_000,
    burst_messages=100_000,
    whole_way_messages=1_000_000,
    waiting_webhooks=100_000,
    limited_jobs=1_000_000,
    limit_seconds=60.0,
)

QUICK: Final = Sizes(
    repeats=2,
    relay_rows=20_000,
    relay_seconds=1.5,
    consume_seconds=2.0,
    latency_samples=60,
    write_seconds=1.0,
    finished_rows=100_000,
    backlog_rows=100_000,
    churn_rounds=3,
    churn_rows=10_000,
    size_rounds=6,
    size_rows=20_000,
    burst_messages=2_000,
    whole_way_messages=5_000,
    waiting_webhooks=100_000,
    limited_jobs=20_000,
    limit_seconds=20.0,
)

SMOKE: Final = Sizes(
    repeats=1,
    relay_rows=300,
    relay_seconds=0.2,
    consume_seconds=0.2,
    latency_samples=5,
    write_seconds=0.2,
    finished_rows=1_000,
    backlog_rows=1_000,
    churn_rounds=2,
    churn_rows=200,
    size_rounds=2,
    size_rows=300,
    burst_messages=20,
    whole_way_messages=40,
    waiting_webhooks=100,
    limited_jobs=100,
    limit_seconds=1.0,
)
