"""The service's processes, started as a supervisor would: from the project's root, with nothing inherited."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from psycopg import Connection
from rq.defaults import RQ_KEY_PREFIX

from embedded.programs.program import Command, Program
from embedded.stack import Stack
from outbox_relay.broker import open_broker
from outbox_relay.loop.publishing.publisher import Publisher
from tests.programs.preloading import Preloaded, PreloadedProgram

ROOT = Path(__file__).parents[2]
RQ = Path(sys.executable).parent / "rq"
OUTBOX_WORKER = "consumer.worker.OutboxWorker"
QUEUES = ("critical", "default")

_NEEDED = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "RQ_KEY_PREFIX": RQ_KEY_PREFIX}


def worker_settings(database_url: str, redis_url: str, smtp_url: str) -> dict[str, str]:
    """Return the environment of a consumer."""
    return {
        "DATABASE_URL": database_url,
        "RQ_REDIS_URL": redis_url,
        "SMTP_URL": smtp_url,
        "MAIL_FROM": "Signup <signup@example.org>",
        "SECRET_KEY": "the key of these tests: 32 and more characters",
        "BASE_URL": "https://example.org",
    }


def worker_command(*options: str) -> list[str | Path]:
    """Return the command of docs/deployment.md."""
    return [RQ, "worker", *options, *QUEUES]


def worker_module(*options: str) -> list[str | Path]:
    """Return the same as a module, which can be forked."""
    return [sys.executable, "-m", "rq.cli", "worker", *options, *QUEUES]


@contextmanager
def forked_stack(folder: Path, origin: Preloaded, api_origin: Preloaded) -> Iterator[Stack]:
    """Yield a stack that forks its API, relay and worker, for tests that are not about how a stack starts.

    Nothing of it is started yet. In the end everything is stopped, and its data removed.
    """
    stack = Stack(folder, secret_key="k" * 32)

    def forked(command: Command, origin: Preloaded, **changes: Any) -> Program:
        env = {**command.env, "RQ_KEY_PREFIX": RQ_KEY_PREFIX}
        return PreloadedProgram(replace(command, env=env, **changes), origin)

    stack.api = forked(stack.api.command, api_origin)
    stack.relay = forked(stack.relay.command, origin)
    stack.worker = forked(stack.worker.command, origin, argv=worker_module())
    try:
        yield stack
    finally:
        stack.stop()
        stack.postgres.remove()


@contextmanager
def started(
    argv: Sequence[str | Path], settings: Mapping[str, str], log_file: Path, origin: Preloaded | None = None
) -> Iterator[Program]:
    """Start a process, forked from the origin if there is one; in the end it is killed with its children."""
    command = Command(name=log_file.stem, argv=argv, env={**_NEEDED, **settings}, cwd=ROOT, log_file=log_file)
    program = Program(command) if origin is None else PreloadedProgram(command, origin)
    program.start()
    try:
        yield program
    finally:
        program.kill(with_children=True)


def run(
    argv: Sequence[str | Path], settings: Mapping[str, str], log_file: Path, origin: Preloaded | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a process that ends by itself, forked from the origin if there is one; its two outputs come as one text."""
    log_file.write_text("")
    with started(argv, settings, log_file, origin) as program:
        exit_code = program.wait(30)
    return subprocess.CompletedProcess([str(part) for part in argv], exit_code, log_file.read_text())


def events(log: str | Program) -> list[dict[str, Any]]:
    """Return our own log lines; RQ's are plain text."""
    text = log if isinstance(log, str) else log.command.log_file.read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]


def publish(connection: Connection[Any], redis_url: str) -> int:
    """Do what a relay does with the messages that are due."""
    with closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as broker:
        publisher = Publisher(broker, publish_lease_seconds=30, probe_timeout_seconds=60)
        return publisher.publish_batch(connection, 1000)
