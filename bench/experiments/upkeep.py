"""Pruning in short steps, and whether the tables return to their size."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg

from bench.environment.history import (
    LIVE,
    LIVE_INDEXES,
    PAST,
    PAST_INDEXES,
    add_finished,
    finish_published,
    sizes_of_outbox,
)
from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import add_messages, settle
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.processes.relays import run_relay
from bench.relays.batches import Task
from bench.relays.ours import build
from outbox_relay.loop.maintenance.pruner import Pruner
from outbox_relay.loop.observer import Observer
from shared.database.connections import connect

MEDIAN, P99, LONGEST, PRUNED = "median ms/step", "p99 ms", "longest ms", "rows pruned/s"

_LOCK_MS = 50.0
_PRUNE_SECONDS = 60.0
_BETWEEN_PASSES_SECONDS = 0.005
_DEADLINE_SECONDS = 600.0


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the pruning, and the sizes round after round."""
    name = f"{sizes.finished_rows:,} finished messages past their age"
    prune = Experiment(
        key="prune",
        title="Pruning: the steps of an otherwise idle relay",
        columns=(MEDIAN, P99, LONGEST, PRUNED),
        reference=name,
        contenders=(Contender(name, partial(_prune, servers, sizes)),),
        goals=(Goal(name, LONGEST, at_most=_LOCK_MS),),
    )
    return [prune, _sizes(servers, sizes)]


class PruningSteps(Observer):
    """Times each step of pruning to the end of its commit, which bounds how long it can hold a lock."""

    def __init__(self) -> None:
        """Start without a step."""
        self.milliseconds: list[float] = []
        self.pruned = 0
        self._took = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the step if it is one of pruning."""
        started = time.perf_counter()
        yield
        if name == "prune":
            self._took = (time.perf_counter() - started) * 1000

    def pass_ends(self, published: int, pruned: int) -> None:  # noqa: ARG002 - as the relay calls it
        """Store the time of a step that had something to delete."""
        if pruned:
            self.pruned += pruned
            self.milliseconds.append(self._took)


def _prune(servers: Servers, sizes: Sizes) -> Measurement:
    """Run a relay that prunes until nothing is left, or for a minute."""
    database_url = servers.new_database("bench_prune")
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_finished(connection, sizes.finished_rows)
    steps = PruningSteps()
    relay = build(Task(database_url, servers.redis.url, 0), keep_done_days=0, observer=steps)
    started = time.perf_counter()
    while steps.pruned < sizes.finished_rows and time.perf_counter() < started + _PRUNE_SECONDS:
        relay.run_once()
        time.sleep(_BETWEEN_PASSES_SECONDS)
    seconds = time.perf_counter() - started
    relay.close()
    return Measurement(
        {
            MEDIAN: statistics.median(steps.milliseconds),
            P99: statistics.quantiles(steps.milliseconds, n=100, method="inclusive")[-1],
            LONGEST: max(steps.milliseconds),
            PRUNED: steps.pruned / seconds,
        },
        tuple(steps.milliseconds),
    )


def _sizes(servers: Servers, sizes: Sizes) -> Experiment:
    database_url = servers.new_database("bench_sizes")
    names = [f"after round {number}" for number in range(1, sizes.size_rounds + 1)]
    middle = names[len(names) // 2]
    bounded = [Goal(names[-1], column, middle, at_most=1.2) for column in (LIVE, LIVE_INDEXES, PAST, PAST_INDEXES)]
    return Experiment(
        key="sizes",
        title=f"Sizes: rounds of {sizes.size_rows:,} messages, each round's history pruned in the next",
        columns=(LIVE, LIVE_INDEXES, PAST, PAST_INDEXES),
        reference=names[0],
        contenders=tuple(Contender(name, partial(_round, servers, database_url, sizes.size_rows)) for name in names),
        goals=tuple(bounded),
    )


def _round(servers: Servers, database_url: str, rows: int) -> Measurement:
    """Prune the previous round's messages, then append, publish and finish new ones."""
    servers.empty_redis()
    with connect(database_url, "bench") as connection:
        pruner = Pruner(keep_days=0)
        while pruner.step(connection):
            pass
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_messages(connection, rows)
        run_relay(servers, database_url, "ours", rows, _DEADLINE_SECONDS)
        finish_published(connection)
        found = sizes_of_outbox(connection)
        # For the autovacuum that comes within a minute: the next round does not wait for it as the next burst would.
        settle(connection)
    return Measurement(found)
