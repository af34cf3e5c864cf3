"""From a commit to the job's pop while nothing else happens, and what the notifier costs signups."""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

import psycopg
from redis import Redis
from rq import Queue

from api.database.notifier import Notifier
from bench.children import Child
from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import empty
from bench.experiments.limits import run_writers
from bench.measuring import Contender, Experiment, Goal, Measurement, Plot
from bench.processes.command_lines import relay_command
from embedded.programs.program import Program
from shared.outbox.messages import CRITICAL, SendVerifyEmail

P50, P99 = "p50 ms", "p99 ms"
COMMITS, CPU = "commits/s", "client CPU µs/commit"
DIRECT, OURS = "enqueue after the commit", "ours: NOTIFY after the commit, relay"
_WITHOUT, _WITH = "without the notifier", "with the notifier"

_WARM_UP: Final = 10
_IDLE_SECONDS: Final = (0.01, 0.04)
"""Seconds between two commits: longer than any step takes, and random, so that they match no poll interval."""


class Waking:
    """A database, and a relay as a real process if one is needed."""

    def __init__(self, servers: Servers) -> None:
        """Create the database."""
        self._servers = servers
        self._database_url = servers.new_database("bench_waking")

    def direct(self, samples: int) -> Measurement:
        """Commit a user, then enqueue with RQ from the same process, as services without an outbox do."""
        empty(self._servers, self._database_url)
        queue = Queue(CRITICAL, connection=Redis.from_url(self._servers.redis.url))

        def commit_and_enqueue(connection: psycopg.Connection[tuple[object, ...]], number: int) -> float:
            _add_user(connection, number)
            committed = time.monotonic()
            queue.enqueue("tasks.send_verify_email", f"user{number}", result_ttl=60)
            return committed

        return self._latency(samples, commit_and_enqueue)

    def notify(self, samples: int) -> Measurement:
        """Commit a message and notify the relay as the API does; the relay's process does the rest."""
        empty(self._servers, self._database_url)
        notifier = Notifier(self._database_url)

        def commit_and_ring(connection: psycopg.Connection[tuple[object, ...]], number: int) -> float:
            connection.execute(
                "INSERT INTO outbox (task, queue, payload) VALUES (%s, %s, jsonb_build_object('username', %s::text))",
                [SendVerifyEmail.task, CRITICAL, f"user{number}"],
            )
            committed = time.monotonic()
            notifier.notify()
            return committed

        try:
            with self._relay():
                return self._latency(samples, commit_and_ring)
        finally:
            notifier.close()

    def commits(self, kind: str, seconds: float) -> Measurement:
        """Write with eight threads at once, in two processes as gunicorn has them, beside a relay at work."""
        empty(self._servers, self._database_url)
        with self._relay():
            found = run_writers(self._servers, self._database_url, kind, seconds, threads=4, processes=2)
        return Measurement({COMMITS: found["rate"], CPU: found["cpu"]})

    def _latency(
        self, samples: int, act: Callable[[psycopg.Connection[tuple[object, ...]], int], float]
    ) -> Measurement:
        """Commit at intervals, and measure the time until another process has popped the job."""
        log_file = self._servers.log_file("popping")
        arguments = ["--count", str(samples + _WARM_UP)]
        latencies = []
        with (
            Child(
                "bench.processes.pop_probe", arguments, {"RQ_REDIS_URL": self._servers.redis.url}, log_file
            ) as popper,
            psycopg.connect(self._database_url, autocommit=True) as connection,
        ):
            popper.wait_until_ready()
            popper.go()
            for number in range(samples + _WARM_UP):
                time.sleep(random.uniform(*_IDLE_SECONDS))  # noqa: S311 - no secret
                committed = act(connection, number)
                latencies.append((popper.figures()["popped"] - committed) * 1000)
        counted = latencies[_WARM_UP:]
        p99 = statistics.quantiles(counted, n=100, method="inclusive")[-1]
        return Measurement({P50: statistics.median(counted), P99: p99}, tuple(counted))

    @contextmanager
    def _relay(self) -> Iterator[None]:
        """Run `python -m outbox_relay`; it listens before the block begins."""
        relay = Program(relay_command(self._servers, self._database_url, "relay of waking"))
        with ExitStack() as undo:
            relay.start()
            undo.callback(relay.stop)
            relay.wait_ready(self._is_listened_to)
            yield

    def _is_listened_to(self) -> bool:
        with psycopg.connect(self._database_url) as connection:
            listening = connection.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
            return listening.rowcount > 0


def _add_user(connection: psycopg.Connection[tuple[object, ...]], number: int) -> None:
    connection.execute(
        "INSERT INTO users (username, email, full_name, hashed_password) VALUES (%s, %s, 'Ada Lovelace', '!')",
        [f"user{number}", f"user{number}@example.com"],
    )


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the latency's comparison and the commits'."""
    waking = Waking(servers)
    return [
        Experiment(
            key="latency",
            title="From the commit to the job's pop by another process, nothing else to do",
            columns=(P50, P99),
            reference=OURS,
            contenders=(
                Contender(DIRECT, partial(waking.direct, sizes.latency_samples)),
                Contender(OURS, partial(waking.notify, sizes.latency_samples)),
            ),
            goals=(Goal(OURS, P50, DIRECT, at_most=3), Goal(OURS, P99, DIRECT, at_most=5)),
            repeats=sizes.repeats,
            plot=Plot("distribution", "ms from commit to pop", "share of commits"),
        ),
        Experiment(
            key="notifier",
            title="Signups a second with 8 writers (2 processes of 4 threads), beside a relay at work",
            columns=(COMMITS, CPU),
            reference=_WITH,
            contenders=(
                Contender(_WITHOUT, partial(waking.commits, "message", sizes.write_seconds)),
                Contender(_WITH, partial(waking.commits, "ring", sizes.write_seconds)),
            ),
            goals=(Goal(_WITH, COMMITS, _WITHOUT, at_least=0.95),),
            repeats=sizes.repeats * 2,
        ),
    ]
