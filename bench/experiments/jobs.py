"""Jobs with nothing to do, beside other job queues: what a `Done()` task and a `handle` task cost by themselves."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Final

from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.jobs import graphile_worker
from bench.jobs.ours import DoneJob, HandledJob
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.processes.job_queues import (
    CPU,
    MEMORY,
    RATE,
    JobQueue,
    JobRuns,
    celery,
    dramatiq,
    graphile,
    ours,
    pgqueuer,
    procrastinate,
)

DONE, HANDLE = "ours, Done()", "ours, handle"
_MANY: Final = 50
_PEERS_OF_GOALS: Final = ("celery", "dramatiq", "procrastinate")


@dataclass(frozen=True, slots=True)
class Entry:
    """A queue in the comparison.

    Attributes:
        name: what the table calls it.
        queue: how its worker is run.
        fast: roughly how many jobs a second it finishes: decides how many it gets.
        package: the peer that has to be installed.
        find: returns None or False where it is not.

    """

    name: str
    queue: JobQueue
    fast: int
    package: str | None = None
    find: Callable[[str], object] = find_spec


def entries() -> list[Entry]:
    """Return all queues, each as its documentation says is best for short jobs."""
    cores = os.cpu_count() or 1
    threads = 8  # dramatiq's own default
    return [
        Entry(DONE, ours(DoneJob.task), 1000),
        Entry(f"{DONE}, WORKER_CONCURRENCY={_MANY}", ours(DoneJob.task, _MANY), 1000),
        Entry(HANDLE, ours(HandledJob.task), 1000),
        Entry(f"{HANDLE}, WORKER_CONCURRENCY={_MANY}", ours(HandledJob.task, _MANY), 1000),
        Entry(f"celery, {cores} processes", celery("prefork", cores), 1000, "celery"),
        Entry(f"dramatiq, {cores} processes x {threads} threads", dramatiq(cores, threads), 2000, "dramatiq"),
        Entry(f"procrastinate, {_MANY} at once", procrastinate(_MANY), 200, "procrastinate"),
        Entry("pgqueuer, batches of 100", pgqueuer(), 3000, "pgqueuer"),
        Entry("graphile-worker, batches of 500", graphile(), 10_000, "graphile-worker", _find_in_node),
    ]


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the comparison."""
    runs = JobRuns(servers)
    every = entries()
    contenders = [
        Contender(entry.name, partial(_measure, runs, entry, sizes.consume_seconds), entry.package, find=entry.find)
        for entry in every
    ]
    peers = [entry.name for entry in every if entry.package in _PEERS_OF_GOALS]
    return [
        Experiment(
            key="jobs",
            title="Jobs with nothing to do, one worker, the queue full before it starts",
            columns=(RATE, CPU, MEMORY),
            reference=DONE,
            contenders=tuple(contenders),
            goals=tuple(Goal(name, RATE, peer, at_least=1) for name in (DONE, HANDLE) for peer in peers),
            repeats=sizes.repeats,
        )
    ]


def _measure(runs: JobRuns, entry: Entry, seconds: float) -> Measurement:
    return runs.measure(entry.queue, max(50, int(entry.fast * seconds)))


def _find_in_node(_package: str) -> bool:
    return graphile_worker.is_installed()
