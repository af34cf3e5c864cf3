"""The consumer beside its peers: claim, mail, acknowledgement; with a fast and with a slow mail server."""

from dataclasses import dataclass
from functools import partial

from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.processes.command_lines import (
    OUTBOX_WORKER,
    Consumer,
    celery,
    dramatiq,
    mails_in_flight,
    procrastinate,
    rq_worker,
    rq_worker_of_usual_task,
)
from bench.processes.workers import CPU, MEMORY, RATE, WorkerRuns

OURS_PER_SECOND = 700
"""How many mails a second it sends roughly; decides how many it gets."""

SLOW_SECONDS = 0.1

_MOST_PROCESSES = 16
"""Of celery, each with 65 MiB; threads are as many as ours has mails in flight."""

STOCK, OURS = "stock rq worker, our task", "ours, one rq worker"
PRELOADED = "stock rq worker, usual task, code preloaded"


@dataclass(frozen=True, slots=True)
class Entry:
    """A consumer in the comparison.

    Attributes:
        name: what the table calls it.
        consumer: how it is run.
        fast: roughly how many mails a second it sends to a server that answers at once: decides how many it gets.
        in_flight: how many mails it sends at once: decides the same for a slow server.
        package: the peer that has to be installed.

    """

    name: str
    consumer: Consumer
    fast: int
    in_flight: int
    package: str | None = None


def entries(in_flight: int) -> list[Entry]:
    """Return all consumers, those that may have several mails in flight with as many of them as ours."""
    half = max(1, in_flight // 2)
    processes = min(in_flight, _MOST_PROCESSES)
    return [
        Entry(STOCK, rq_worker(), 4, 1),
        Entry(PRELOADED, rq_worker_of_usual_task(), 35, 1),
        Entry(OURS, rq_worker(OUTBOX_WORKER), OURS_PER_SECOND, in_flight),
        Entry(f"celery, {in_flight} threads", celery("threads", in_flight), 400, in_flight, "celery"),
        Entry(f"celery, {processes} processes", celery("prefork", processes), 400, processes, "celery"),
        Entry(f"dramatiq, 1 process x {in_flight} threads", dramatiq(1, in_flight), 400, in_flight, "dramatiq"),
        Entry(f"dramatiq, 2 processes x {half} threads", dramatiq(2, half), 500, 2 * half, "dramatiq"),
        Entry(f"procrastinate, {in_flight} at once", procrastinate(in_flight), 150, in_flight, "procrastinate"),
    ]


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return both comparisons."""
    runs = WorkerRuns(servers)
    in_flight = mails_in_flight(servers)
    every = entries(in_flight)
    twice = _ours_with(2 * in_flight)
    return [
        _experiment(
            "consumers",
            "a mail server that answers at once",
            [_contender(runs, entry, sizes, delay_seconds=0.0) for entry in every],
            (Goal(OURS, RATE, PRELOADED, at_least=15), *_ahead_of_peers(every)),
            sizes,
        ),
        _experiment(
            "consumers-slow",
            "a mail server that takes 100 ms",
            [_contender(runs, entry, sizes, delay_seconds=SLOW_SECONDS) for entry in [*every, twice]],
            (
                Goal(OURS, RATE, STOCK, at_least=20),
                # A worker that sends one mail after the other gets some 7 of them through: 20 times that takes more
                # than 10 in flight, whatever the code.
                Goal(twice.name, RATE, PRELOADED, at_least=20),
                *_ahead_of_peers(every),
            ),
            sizes,
        ),
    ]


def _ours_with(in_flight: int) -> Entry:
    worker = rq_worker(OUTBOX_WORKER, in_flight=in_flight)
    return Entry(f"{OURS}, WORKER_CONCURRENCY={in_flight}", worker, OURS_PER_SECOND, in_flight)


def _ahead_of_peers(every: list[Entry]) -> list[Goal]:
    peers = [entry.name for entry in every if entry.package in {"celery", "dramatiq"}]
    return [Goal(OURS, RATE, peer, at_least=1) for peer in peers]


def _contender(runs: WorkerRuns, entry: Entry, sizes: Sizes, *, delay_seconds: float) -> Contender:
    return Contender(entry.name, partial(_measure, runs, entry, sizes.consume_seconds, delay_seconds), entry.package)


def _experiment(key: str, what: str, contenders: list[Contender], goals: tuple[Goal, ...], sizes: Sizes) -> Experiment:
    return Experiment(
        key=key,
        title=f"Whole consumer (claim, mail, ack), {what}",
        columns=(RATE, CPU, MEMORY),
        reference=OURS,
        contenders=tuple(contenders),
        goals=goals,
        repeats=sizes.repeats,
    )


def _measure(runs: WorkerRuns, entry: Entry, seconds: float, delay_seconds: float) -> Measurement:
    rate = min(entry.fast, entry.in_flight / delay_seconds) if delay_seconds else entry.fast
    warm_up = max(entry.in_flight, int(rate * seconds / 10))
    return runs.measure(entry.consumer, warm_up + max(2, int(rate * seconds)), warm_up, delay_seconds)
