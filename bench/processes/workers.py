"""Measure a consumer: fill its queue, and wait until the last message is acknowledged."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg

from bench.children import environment, run_together
from bench.environment.servers import Servers
from bench.environment.workload import add_messages, add_users, settle
from bench.measuring import Measurement
from bench.processes.command_lines import Consumer, settings_of_worker
from bench.processes.relays import run_relay
from bench.processes.watching import cpu_seconds, memory_mib, wait_for_mails, wait_until_acknowledged
from embedded.programs.program import Command, Program
from embedded.stack import ROOT

RATE, CPU, MEMORY = "mails/s", "CPU ms/mail", "MiB"

_FILL_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 5.0
_DATABASE: Final = "bench_workers"


class WorkerRuns:
    """Runs consumers on a full queue, each time on a new database."""

    def __init__(self, servers: Servers, database_url: str | None = None) -> None:
        """Store the servers. Of a database with a history only the live rows are deleted."""
        self._servers = servers
        self._database_url = database_url

    def measure(self, consumer: Consumer, mails: int, warm_up: int, delay_seconds: float = 0.0) -> Measurement:
        """Run a consumer that sends this many mails.

        The clock starts when it has sent the first `warm_up` mails, so that its start is not counted, and stops when
        the last message is acknowledged.
        """
        database_url = self._database_url or self._servers.new_database(_DATABASE)
        self._fill(consumer, database_url, mails)
        self._servers.sink.begin(delay_seconds)
        with psycopg.connect(database_url, autocommit=True) as connection, ExitStack() as undo:
            programs = [self._start(consumer, database_url, number, undo) for number in range(consumer.processes)]
            wait_for_mails(self._servers.sink, programs, warm_up)
            used = cpu_seconds(programs)
            wait_for_mails(self._servers.sink, programs, mails)
            wait_until_acknowledged(connection, programs)
            ended = time.monotonic()
            used = cpu_seconds(programs) - used
            memory = memory_mib(programs)
        started = self._servers.sink.times()[warm_up - 1]
        sent = mails - warm_up
        return Measurement({RATE: sent / (ended - started), CPU: used / sent * 1000, MEMORY: memory})

    def _fill(self, consumer: Consumer, database_url: str, mails: int) -> None:
        self._servers.empty_redis()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("TRUNCATE users, verify_emails, outbox RESTART IDENTITY")
            connection.execute("DELETE FROM outbox_finished WHERE id > 0")  # those of an earlier run
            add_users(connection, mails)
            add_messages(connection, mails)
            if consumer.filler is None:
                run_relay(self._servers, database_url, "ours", mails, _FILL_SECONDS)
            else:
                _publish_in_sql(connection)
                self._fill_peer(consumer.filler, database_url, mails)
            settle(connection)

    def _fill_peer(self, filler: str, database_url: str, mails: int) -> None:
        settings = settings_of_worker(self._servers, database_url)
        log_file = self._servers.log_file(f"filler {filler}")
        run_together(1, "bench.consumers", [filler, "--count", str(mails)], settings, log_file)

    def _start(self, consumer: Consumer, database_url: str, number: int, undo: ExitStack) -> Program:
        name = f"{Path(consumer.argv[0]).name} {consumer.filler or 'worker'} {number}"
        env = environment({**settings_of_worker(self._servers, database_url), **(consumer.settings or {})})
        program = Program(Command(name, consumer.argv, env, ROOT, self._servers.log_file(name)))
        program.start()
        undo.callback(program.kill, with_children=True)
        undo.callback(program.stop, _STOP_SECONDS)
        return program


def _publish_in_sql(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Set the rows to the state that a relay leaves them in; the peer's own queue is filled separately."""
    connection.execute(
        """
        UPDATE outbox SET status = 'published', broker_epoch = '-', published_at = clock_timestamp(),
                          lease_until = clock_timestamp() + interval '1 hour'
        """
    )
