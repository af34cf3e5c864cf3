"""The signup's write: what the message costs beside the user alone, and beside an enqueue after the commit."""

from collections.abc import Callable
from functools import partial

import psycopg

from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.processes.children import run_together

RATE, CPU = "signups/s", "client CPU µs/signup"
KINDS = {
    "user alone, the same use case": "alone",
    "user alone, SQLAlchemy's defaults": "usual",
    "ours: user and message in one statement": "message",
    "user, then RQ's enqueue": "enqueue",
}
_DATABASE = "bench_writing"


def run_writers(
    servers: Servers, database_url: str, kind: str, seconds: float, *, threads: int, processes: int = 1
) -> dict[str, float]:
    """Let processes of so many threads write at once and give the sum of their figures."""
    settings = {"DATABASE_URL": database_url, "RQ_REDIS_URL": servers.redis.url}
    arguments = [kind, "--threads", str(threads), "--seconds", str(seconds)]
    log_file = servers.log_file(f"writers {kind}")
    figures = run_together(processes, "bench.processes.writers", arguments, settings, log_file)
    commits = sum(each["commits"] for each in figures)
    rate = sum(each["commits"] / each["seconds"] for each in figures)
    return {"rate": rate, "cpu": sum(each["cpu_seconds"] for each in figures) / commits * 1e6}


def empty(servers: Servers, database_url: str) -> None:
    """Begin again with empty tables and an empty Redis."""
    servers.empty_redis()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE users, outbox, verification_mails, mail_counts CASCADE")
        connection.execute("CHECKPOINT")


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the comparison with one writer and with eight."""
    database_url = servers.new_database(_DATABASE)

    def measure(kind: str, threads: int, processes: int) -> Measurement:
        empty(servers, database_url)
        found = run_writers(servers, database_url, kind, sizes.write_seconds, threads=threads, processes=processes)
        return Measurement({RATE: found["rate"], CPU: found["cpu"]})

    return [_experiment(measure, sizes, processes, threads) for processes, threads in ((1, 1), (2, 4))]


def _experiment(
    measure: Callable[[str, int, int], Measurement], sizes: Sizes, processes: int, threads: int
) -> Experiment:
    contenders = tuple(Contender(name, partial(measure, kind, threads, processes)) for name, kind in KINDS.items())
    alone, usual, ours, enqueue = KINDS
    goals = (
        Goal(ours, RATE, usual, at_least=0.9),
        Goal(ours, RATE, alone, at_least=0.9),
        Goal(ours, CPU, alone, at_most=1.3),
        Goal(ours, RATE, enqueue, at_least=1.3),
    )
    writers = processes * threads
    return Experiment(
        key=f"signup-{writers}",
        title=f"Signup's write through SQLAlchemy Core, {writers} at once (without the password's hash)",
        columns=(RATE, CPU),
        reference=ours,
        contenders=contenders,
        goals=goals,
        repeats=sizes.repeats * 2,
    )
