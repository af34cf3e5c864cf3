"""A relay and workers as processes, which may be stopped and started again."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import psycopg

from bench.children import environment
from bench.environment.servers import Servers
from bench.errors import ContenderFailedError
from bench.processes.command_lines import OUTBOX_WORKER, WORKER_ARGV, relay_command, settings_of_worker
from embedded.programs.program import Command, Program
from embedded.stack import ROOT

_STOP_SECONDS: Final = 20.0


class Service:
    """One relay and some OutboxWorkers; use `running()`."""

    def __init__(self, relay: Program, workers: list[Program]) -> None:
        """Store the programs."""
        self._relay = relay
        self.workers = workers

    @classmethod
    @contextmanager
    def running(
        cls, servers: Servers, database_url: str, workers: int, settings: Mapping[str, str]
    ) -> Iterator["Service"]:
        """Start them; the relay listens before the block begins."""
        relay = Program(relay_command(servers, database_url, "relay of a service"))
        own = {**settings_of_worker(servers, database_url), "RQ_WORKER_CLASS": OUTBOX_WORKER, **settings}
        programs = [
            Program(Command(name, WORKER_ARGV, environment(own), ROOT, servers.log_file(name)))
            for name in (f"worker {number} of a service" for number in range(1, workers + 1))
        ]
        with ExitStack() as undo:
            for program in (relay, *programs):
                program.start()
                undo.callback(program.kill, with_children=True)
                undo.callback(program.stop, _STOP_SECONDS)
            relay.wait_ready(lambda: _is_listened_to(database_url))
            yield cls(relay, programs)

    def check(self, what: str, deadline: float) -> None:
        """Raise ContenderFailedError when a program has ended, or it is past the deadline (monotonic)."""
        for program in (self._relay, *self.workers):
            if not program.running:
                raise ContenderFailedError(f"{program.name} ended ({program.exit_code})")
        if time.monotonic() > deadline:
            raise ContenderFailedError(f"waited too long for {what}")

    def restart(self, number: int) -> None:
        """Stop a worker as its supervisor does, and start it again."""
        worker = self.workers[number]
        worker.stop(_STOP_SECONDS)
        worker.start()


def _is_listened_to(database_url: str) -> bool:
    with psycopg.connect(database_url) as connection:
        listening = connection.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        return listening.rowcount > 0
