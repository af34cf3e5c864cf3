"""Consumers as processes: how each is started, its queue filled, and what a run of it yields."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import psycopg

from bench.children import Child, environment
from bench.errors import ContenderFailedError
from bench.experiments.relay import run_relay
from bench.measuring import Measurement
from bench.servers import Servers
from bench.workload import add_messages, add_users, settle
from embedded.errors import tail
from embedded.programs import Command, Program
from embedded.stack import ROOT

RATE, CPU, MEMORY = "mails/s", "CPU ms/mail", "MiB"

_POLL_SECONDS: Final = 0.005
_PATIENCE_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 5.0
_DATABASE: Final = "bench_workers"
_BIN: Final = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Consumer:
    """How a consumer is run.

    Attributes:
        argv: its command line.
        filler: the module of bench.consumers that fills its queue; without it our relay does.
        settings: environment variables of its own.
        processes: how many times it is started.

    """

    argv: Sequence[str | Path]
    filler: str | None = None
    settings: Mapping[str, str] | None = None
    processes: int = 1


def rq_worker(worker_class: str | None = None, processes: int = 1) -> Consumer:
    """Give `rq worker critical default`, with RQ's own class unless another is named."""
    settings = {} if worker_class is None else {"RQ_WORKER_CLASS": worker_class}
    return Consumer([_BIN / "rq", "worker", "critical", "default"], settings=settings, processes=processes)


def celery(pool: str, concurrency: int) -> Consumer:
    """Give celery with so many threads or processes."""
    options = ["worker", "--pool", pool, "--concurrency", str(concurrency), "--loglevel", "WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    argv = [sys.executable, "-m", "celery", "--app", "bench.consumers.celery_app", *options, *quiet]
    return Consumer(argv, filler="celery_app")


def dramatiq(processes: int, threads: int) -> Consumer:
    """Give dramatiq with so many processes of so many threads."""
    options = ["--processes", str(processes), "--threads", str(threads)]
    argv = [sys.executable, "-m", "dramatiq", "bench.consumers.dramatiq_actors", *options]
    return Consumer(argv, filler="dramatiq_actors")


def procrastinate(concurrency: int) -> Consumer:
    """Give procrastinate with so many jobs at once."""
    options = ["worker", "--concurrency", str(concurrency)]
    argv = [sys.executable, "-m", "procrastinate", "--app", "bench.consumers.procrastinate_app.app", *options]
    return Consumer(argv, filler="procrastinate_app")


def settings_of_worker(servers: Servers, database_url: str) -> dict[str, str]:
    """Give the environment of any consumer."""
    return {
        "DATABASE_URL": database_url,
        "RQ_REDIS_URL": servers.redis.url,
        "SMTP_URL": servers.sink.url,
        "MAIL_FROM": "Signup <signup@example.org>",
        "SECRET_KEY": "the key of the bench: 32 characters and more",
        "BASE_URL": "https://example.org",
    }


def mails_in_flight(servers: Servers) -> int:
    """Ask our own settings how many mails one worker has in flight by default, so that peers get as many threads."""
    code = "from shared.settings import read_consumer_settings as read; print(read().concurrency)"
    env = environment(settings_of_worker(servers, "postgresql://"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    return int(done.stdout)


class WorkerRuns:
    """Runs consumers on a full queue, each time on a new database."""

    def __init__(self, servers: Servers) -> None:
        """Keep the servers."""
        self._servers = servers

    def measure(self, consumer: Consumer, mails: int, warm_up: int, delay_seconds: float = 0.0) -> Measurement:
        """Let a consumer send that many mails.

        The clock starts when it has sent the first `warm_up` mails, so that its start is not counted, and stops when
        the last message is acknowledged.
        """
        database_url = self._servers.new_database(_DATABASE)
        self._fill(consumer, database_url, mails)
        self._servers.sink.begin(delay_seconds)
        with psycopg.connect(database_url, autocommit=True) as connection, ExitStack() as undo:
            programs = [self._start(consumer, database_url, number, undo) for number in range(consumer.processes)]
            self._wait_for_mails(programs, warm_up)
            used = cpu_seconds(programs)
            self._wait_for_mails(programs, mails)
            while connection.execute("SELECT FROM outbox LIMIT 1").rowcount:
                self._look_after(programs)
            ended = time.monotonic()
            used = cpu_seconds(programs) - used
            memory = memory_mib(programs)
        started = self._servers.sink.times()[warm_up - 1]
        sent = mails - warm_up
        return Measurement({RATE: sent / (ended - started), CPU: used / sent * 1000, MEMORY: memory})

    def _fill(self, consumer: Consumer, database_url: str, mails: int) -> None:
        self._servers.empty_redis()
        with psycopg.connect(database_url, autocommit=True) as connection:
            add_users(connection, mails)
            add_messages(connection, mails)
            if consumer.filler is None:
                run_relay(self._servers, database_url, "ours", mails, _PATIENCE_SECONDS)
            else:
                _publish_in_sql(connection)
                self._fill_peer(consumer.filler, database_url, mails)
            settle(connection)

    def _fill_peer(self, filler: str, database_url: str, mails: int) -> None:
        settings = settings_of_worker(self._servers, database_url)
        log_file = self._servers.log_file(f"filler {filler}")
        with Child("bench.consumers", [filler, "--count", str(mails)], settings, log_file) as child:
            child.go()
            child.figures()

    def _start(self, consumer: Consumer, database_url: str, number: int, undo: ExitStack) -> Program:
        name = f"{Path(consumer.argv[0]).name} {consumer.filler or 'worker'} {number}"
        env = environment({**settings_of_worker(self._servers, database_url), **(consumer.settings or {})})
        program = Program(Command(name, consumer.argv, env, ROOT, self._servers.log_file(name)))
        program.start()
        undo.callback(program.kill, with_children=True)
        undo.callback(program.stop, _STOP_SECONDS)
        return program

    def _wait_for_mails(self, programs: Sequence[Program], mails: int) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (count := self._servers.sink.count()) < mails:
            self._look_after(programs)
            if time.monotonic() > deadline:
                log_file = programs[0].command.log_file
                raise ContenderFailedError(f"{count} of {mails} mails after {_PATIENCE_SECONDS:g} s\n{tail(log_file)}")

    @staticmethod
    def _look_after(programs: Sequence[Program]) -> None:
        time.sleep(_POLL_SECONDS)
        for program in programs:
            if not program.running:
                log_file = program.command.log_file
                raise ContenderFailedError(f"{program.name} ended ({program.exit_code})\n{tail(log_file)}")


def cpu_seconds(programs: Sequence[Program]) -> float:
    """Give the processor time of the programs and their children, also of children that have ended."""
    total = 0.0
    for process in _family(programs):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_mib(programs: Sequence[Program]) -> float:
    """Give the resident memory of the programs and their children in MiB; pages that they share count for each."""
    total = 0
    for process in _family(programs):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 2**20


def _family(programs: Sequence[Program]) -> list[psutil.Process]:
    parents = [psutil.Process(program.pid) for program in programs]
    return parents + [child for parent in parents for child in parent.children(recursive=True)]


def _publish_in_sql(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Give the rows the state that a relay leaves them in; the peer's own queue is filled by itself."""
    connection.execute(
        """
        UPDATE outbox SET status = 'published', broker_epoch = '-', published_at = clock_timestamp(),
                          lease_until = clock_timestamp() + interval '1 hour'
        """
    )
