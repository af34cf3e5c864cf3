"""What keeps the database small: pruning in short steps, and sizes that come back to where they were."""

import time
from functools import partial

import psycopg

from bench.experiments.relay import run_relay
from bench.history import LIVE, LIVE_INDEXES, PAST, PAST_INDEXES, add_finished, finish_published, sizes_of_outbox
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.relays.batches import Task
from bench.relays.ours import build
from bench.servers import Servers
from bench.sizes import Sizes
from bench.workload import add_messages, settle

MEDIAN, LONGEST, PRUNED = "median ms/step", "longest ms", "rows pruned/s"

_LOCK_MS = 50.0
_PRUNE_SECONDS = 60.0
_PATIENCE_SECONDS = 600.0


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Give the pruning, and the sizes round after round."""
    name = f"{sizes.finished_rows:,} finished messages past their age"
    prune = Experiment(
        key="prune",
        title="Pruning: passes of an otherwise idle relay, each with one step",
        columns=(MEDIAN, LONGEST, PRUNED),
        reference=name,
        contenders=(Contender(name, partial(_prune, servers, sizes)),),
        goals=(Goal(name, LONGEST, at_most=_LOCK_MS),),
    )
    return [prune, _sizes(servers, sizes)]


def _prune(servers: Servers, sizes: Sizes) -> Measurement:
    """Time whole passes: whatever a step of pruning locks, it locks for no longer than that."""
    database_url = servers.new_database("bench_prune")
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_finished(connection, sizes.finished_rows)
        relay = build(Task(database_url, servers.redis.url, 0), keep_done_days=0)
        steps = []
        deadline = time.perf_counter() + _PRUNE_SECONDS
        full = True
        while full and time.perf_counter() < deadline:
            started = time.perf_counter()
            full = relay.run_once().full
            steps.append((time.perf_counter() - started) * 1000)
        relay.close()
        row = connection.execute("SELECT count(*) FROM outbox_finished").fetchone()
    pruned = sizes.finished_rows - (row[0] if row else 0)
    ordered = sorted(steps)
    return Measurement(
        {MEDIAN: ordered[len(ordered) // 2], LONGEST: ordered[-1], PRUNED: pruned / sum(steps) * 1000}, tuple(steps)
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
    """Prune what the round before left, then let messages come, be published and be finished."""
    servers.empty_redis()
    relay = build(Task(database_url, servers.redis.url, rows), keep_done_days=0)
    while relay.run_once().full:
        pass
    relay.close()
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_messages(connection, rows)
        run_relay(servers, database_url, "ours", rows, _PATIENCE_SECONDS)
        finish_published(connection)
        found = sizes_of_outbox(connection)
        # For the autovacuum that comes within a minute: the next round does not wait for it as the next burst would.
        settle(connection)
    return Measurement(found)
