"""The command lines of all consumers, and of the programs that fill their queues."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.children import environment, run_together
from bench.environment.servers import Servers
from embedded.programs.program import Command
from embedded.stack import ROOT

_BIN: Final = Path(sys.executable).parent

WORKER_ARGV: Final[Sequence[str | Path]] = (_BIN / "rq", "worker", "critical", "default")
"""The command of docs/deployment.md, for RQ's own class and for ours."""

OUTBOX_WORKER: Final = "consumer.worker.OutboxWorker"


@dataclass(frozen=True, slots=True)
class Consumer:
    """The way to run a consumer.

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


def rq_worker(worker_class: str | None = None, processes: int = 1, in_flight: int | None = None) -> Consumer:
    """Return `rq worker critical default`, with RQ's own class unless another is named."""
    settings = {} if worker_class is None else {"RQ_WORKER_CLASS": worker_class}
    if in_flight is not None:
        settings["WORKER_CONCURRENCY"] = str(in_flight)
    return Consumer(WORKER_ARGV, settings=settings, processes=processes)


def rq_worker_of_usual_task() -> Consumer:
    """Return `rq worker` with RQ's own class, running the usual task, with its code loaded before the forks."""
    return Consumer([*WORKER_ARGV, "--config", "bench.consumers.rq_tasks"], filler="rq_tasks")


def celery(pool: str, concurrency: int) -> Consumer:
    """Return celery with this many threads or processes."""
    options = ["worker", "--pool", pool, "--concurrency", str(concurrency), "--loglevel", "WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    argv = [sys.executable, "-m", "celery", "--app", "bench.consumers.celery_app", *options, *quiet]
    return Consumer(argv, filler="celery_app")


def dramatiq(processes: int, threads: int) -> Consumer:
    """Return dramatiq with this many processes and threads."""
    options = ["--processes", str(processes), "--threads", str(threads)]
    argv = [sys.executable, "-m", "dramatiq", "bench.consumers.dramatiq_actors", *options]
    return Consumer(argv, filler="dramatiq_actors")


def procrastinate(concurrency: int) -> Consumer:
    """Return procrastinate with this many jobs at once."""
    options = ["worker", "--concurrency", str(concurrency)]
    argv = [sys.executable, "-m", "procrastinate", "--app", "bench.consumers.procrastinate_app.app", *options]
    return Consumer(argv, filler="procrastinate_app")


def settings_of_worker(servers: Servers, database_url: str) -> dict[str, str]:
    """Return the environment of any consumer."""
    return {
        "DATABASE_URL": database_url,
        "RQ_REDIS_URL": servers.redis.url,
        "SMTP_URL": servers.sink.url,
        "MAIL_FROM": "Signup <signup@example.org>",
        "SECRET_KEY": "the key of the bench: 32 characters and more",
        "BASE_URL": "https://example.org",
    }


def relay_command(servers: Servers, database_url: str, name: str) -> Command:
    """Return `python -m outbox_relay` with its default settings."""
    settings = {"DATABASE_URL": database_url, "RQ_REDIS_URL": servers.redis.url}
    argv = [sys.executable, "-m", "outbox_relay"]
    return Command(name, argv, environment(settings), ROOT, servers.log_file(name))


def mails_in_flight(servers: Servers) -> int:
    """Return how many mails one worker has in flight by default, so that peers get as many threads."""
    settings = settings_of_worker(servers, servers.postgres.url())
    figures = run_together(1, "bench.processes.in_flight", [], settings, servers.log_file("in flight"))
    return int(figures[0]["in_flight"])
