"""Measure a job queue: fill it with jobs that do nothing, and wait until its worker has finished the last one."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.children import environment, run_together
from bench.environment.servers import Servers
from bench.environment.workload import settle
from bench.errors import ContenderFailedError
from bench.jobs import graphile_worker
from bench.measuring import Measurement
from bench.processes.command_lines import OUTBOX_WORKER, WORKER_ARGV, settings_of_worker
from bench.processes.relays import run_relay
from bench.processes.watching import cpu_seconds, memory_mib, watch
from embedded.programs.program import Command, Program
from embedded.stack import ROOT

RATE, CPU, MEMORY = "jobs/s", "CPU µs/job", "MiB"

_DATABASE: Final = "bench_jobs"
_FILL_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05
"""Counting takes the server a few milliseconds, so it is not done all the time."""

_REDIS_KEYS: Final = {"celery": ("celery", "unacked"), "dramatiq": (None, "dramatiq:default.msgs")}

Left = Callable[[Servers, psycopg.Connection[Any]], int]
"""Returns how many jobs are not finished."""


@dataclass(frozen=True, slots=True)
class JobQueue:
    """The way to run a queue's worker.

    Attributes:
        argv: its command line.
        left: how many of its jobs are not finished.
        filler: the module of bench.jobs that fills it; without it our relay does.
        task: our task, without a filler.
        settings: environment variables of its own.

    """

    argv: Sequence[str | Path]
    left: Left
    filler: str | None = None
    task: str = ""
    settings: Mapping[str, str] | None = None


def ours(task: str, in_flight: int | None = None) -> JobQueue:
    """Return OutboxWorker with one of our two tasks, with its own number of places unless another is given."""
    settings = {"RQ_WORKER_CLASS": OUTBOX_WORKER, "OUTBOX_TASKS": "bench.jobs.ours"}
    if in_flight is not None:
        settings["WORKER_CONCURRENCY"] = str(in_flight)
    return JobQueue(WORKER_ARGV, _in_table("outbox"), task=task, settings=settings)


def celery(pool: str, concurrency: int) -> JobQueue:
    """Return celery with this many processes or threads."""
    options = ["worker", "--pool", pool, "--concurrency", str(concurrency), "--loglevel", "WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    argv = [sys.executable, "-m", "celery", "--app", "bench.jobs.celery_app", *options, *quiet]
    return JobQueue(argv, partial(_in_redis, "celery"), "celery_app")


def dramatiq(processes: int, threads: int) -> JobQueue:
    """Return dramatiq with this many processes and threads."""
    options = ["--processes", str(processes), "--threads", str(threads)]
    argv = [sys.executable, "-m", "dramatiq", "bench.jobs.dramatiq_actors", *options]
    return JobQueue(argv, partial(_in_redis, "dramatiq"), "dramatiq_actors")


def procrastinate(concurrency: int) -> JobQueue:
    """Return procrastinate with this many jobs at once."""
    options = ["worker", "--concurrency", str(concurrency)]
    argv = [sys.executable, "-m", "procrastinate", "--app", "bench.jobs.procrastinate_app.app", *options]
    return JobQueue(argv, _in_table("procrastinate_jobs WHERE status IN ('todo', 'doing')"), "procrastinate_app")


def pgqueuer() -> JobQueue:
    """Return pgqueuer."""
    argv = [sys.executable, "-m", "bench.jobs.pgqueuer_app"]
    return JobQueue(argv, _in_table("pgqueuer"), "pgqueuer_app")


def graphile() -> JobQueue:
    """Return graphile-worker with the settings of its guide to performance."""
    return JobQueue(graphile_worker.command(), _in_table("graphile_worker._private_jobs"), "graphile_worker")


class JobRuns:
    """Runs workers on a full queue, each time in a new database."""

    def __init__(self, servers: Servers) -> None:
        """Store the servers."""
        self._servers = servers

    def measure(self, queue: JobQueue, count: int) -> Measurement:
        """Run a worker that finishes this many jobs.

        The clock starts when a tenth of them is finished, so that the worker's start is not counted, and stops when
        none is left.
        """
        database_url = self._servers.new_database(_DATABASE)
        self._fill(queue, database_url, count)
        with psycopg.connect(database_url, autocommit=True) as connection, ExitStack() as undo:
            settle(connection)
            worker = self._start(queue, database_url, undo)
            left = self._wait(queue, connection, worker, count - count // 10)
            used, started = cpu_seconds([worker]), time.monotonic()
            self._wait(queue, connection, worker, 0)
            ended, used = time.monotonic(), cpu_seconds([worker]) - used
            memory = memory_mib([worker])
            if queue.filler is None:
                _check_finished(connection, count)
        done = max(1, left)
        return Measurement({RATE: done / (ended - started), CPU: used / done * 1e6, MEMORY: memory})

    def _fill(self, queue: JobQueue, database_url: str, count: int) -> None:
        self._servers.empty_redis()
        if queue.filler is not None:
            log_file = self._servers.log_file(f"filler {queue.filler}")
            arguments = [queue.filler, "--count", str(count)]
            run_together(1, "bench.jobs", arguments, self._settings(queue, database_url), log_file)
            return
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                """
                INSERT INTO outbox (task, queue, destination, payload)
                SELECT %s, 'default', 'local', jsonb_build_object('number', n) FROM generate_series(1, %s) AS n
                """,
                [queue.task, count],
            )
        run_relay(self._servers, database_url, "ours", count, _FILL_SECONDS)

    def _settings(self, queue: JobQueue, database_url: str) -> dict[str, str]:
        # libpq and asyncpg read the file of passwords from the URL, Node.js from the environment.
        own = {"PGPASSFILE": str(self._servers.postgres.password_file), **(queue.settings or {})}
        return {**settings_of_worker(self._servers, database_url), **own}

    def _start(self, queue: JobQueue, database_url: str, undo: ExitStack) -> Program:
        name = f"jobs {queue.filler or 'ours'}"
        env = environment(self._settings(queue, database_url))
        program = Program(Command(name, queue.argv, env, ROOT, self._servers.log_file(name)))
        program.start()
        undo.callback(program.kill, with_children=True)
        undo.callback(program.stop, _STOP_SECONDS)
        return program

    def _wait(self, queue: JobQueue, connection: psycopg.Connection[Any], worker: Program, most: int) -> int:
        """Wait until at most this many jobs are left, and return how many are."""
        seen, seen_at = -1, time.monotonic()
        while (left := queue.left(self._servers, connection)) > most:
            if left != seen:
                seen, seen_at = left, time.monotonic()
            watch([worker], f"{left} jobs are left", seen_at)
            time.sleep(_LOOK_SECONDS)
        return left


def _in_table(table: str) -> Left:
    def left(_servers: Servers, connection: psycopg.Connection[Any]) -> int:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(row[0]) if row else 0

    return left


def _in_redis(name: str, servers: Servers, _connection: psycopg.Connection[Any]) -> int:
    """Return how many jobs wait, or are with a worker and not acknowledged."""
    listed, kept = _REDIS_KEYS[name]
    with servers.redis.client() as client:
        return int(client.hlen(kept)) + (int(client.llen(listed)) if listed else 0)


def _check_finished(connection: psycopg.Connection[Any], count: int) -> None:
    row = connection.execute("SELECT count(*) FROM outbox_finished WHERE status = 'done'").fetchone()
    if row is None or row[0] != count:
        raise ContenderFailedError(f"{row and row[0]} of {count} jobs are done")
