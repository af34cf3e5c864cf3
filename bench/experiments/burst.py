"""A burst: many signups' messages at once, from the first row to the last mail, and where the time went."""

import time
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import psycopg

from bench.children import environment
from bench.environment.history import LIVE, LIVE_INDEXES, PAST, PAST_INDEXES, sizes_of_outbox
from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import add_messages, add_users, settle
from bench.measuring import Contender, Experiment, Goal, Measurement, Plot
from bench.processes.command_lines import OUTBOX_WORKER, WORKER_ARGV, relay_command, settings_of_worker
from bench.processes.watching import memory_mib, wait_for_mails, wait_until_acknowledged
from embedded.programs.program import Command, Program
from embedded.stack import ROOT
from shared.outbox.messages import NOTIFY_CHANNEL

TOTAL, RATE = "s to the last mail", "mails/s"
WRITTEN, PUBLISHED, DONE = "s to the last row", "s to the last push", "s to the last ack"
PENDING, QUEUED, WORKED = "median s pending", "median s in Redis", "median s from claim to ack"
EARLY, END, GROWTH = "MiB at a fifth", "MiB at the end", "memory, end : fifth"

_WARM_UP: Final = 50


class Burst:
    """The whole way of a message through real processes: one relay, and one or more `rq worker critical default`."""

    def __init__(self, servers: Servers, messages: int) -> None:
        """Store how many messages come at once."""
        self._servers = servers
        self._messages = messages

    def measure(self, workers: int) -> Measurement:
        """Let the processes become idle, write all messages, and wait for the last acknowledgement."""
        servers = self._servers
        database_url = servers.new_database("bench_burst")
        servers.empty_redis()
        servers.sink.begin()
        with ExitStack() as undo:
            connection = undo.enter_context(psycopg.connect(database_url, autocommit=True))
            add_users(connection, max(_WARM_UP, self._messages))
            settle(connection)
            programs = self._start(database_url, workers, undo)
            add_messages(connection, _WARM_UP)
            wait_for_mails(self._servers.sink, programs, _WARM_UP)
            wait_until_acknowledged(connection, programs)
            return self._carry_out(programs, connection)

    def _carry_out(self, programs: list[Program], connection: psycopg.Connection[Any]) -> Measurement:
        started = time.monotonic()
        add_messages(connection, self._messages)
        written = time.monotonic() - started
        connection.execute(f"NOTIFY {NOTIFY_CHANNEL}")
        wait_for_mails(self._servers.sink, programs, _WARM_UP + self._messages // 5)
        early = memory_mib(programs[1:])
        wait_for_mails(self._servers.sink, programs, _WARM_UP + self._messages)
        wait_until_acknowledged(connection, programs)
        done = time.monotonic() - started
        end = memory_mib(programs[1:])
        accepted = [at - started for at in self._servers.sink.times()[_WARM_UP:]]
        return Measurement(
            {
                TOTAL: accepted[-1],
                RATE: self._messages / accepted[-1],
                WRITTEN: written,
                DONE: done,
                **_waits(connection),
                **sizes_of_outbox(connection),
                EARLY: early,
                END: end,
                GROWTH: end / early,
            },
            tuple(accepted),
        )

    def _start(self, database_url: str, workers: int, undo: ExitStack) -> list[Program]:
        """Start the relay, which comes first in the list, and the workers."""
        settings = settings_of_worker(self._servers, database_url)
        commands = [relay_command(self._servers, database_url, "relay of burst")]
        for number in range(workers):
            log_file = self._servers.log_file(f"worker of burst {number}")
            env = environment({**settings, "RQ_WORKER_CLASS": OUTBOX_WORKER})
            commands.append(Command(f"worker of burst {number}", WORKER_ARGV, env, ROOT, log_file))
        programs = [Program(command) for command in commands]
        for program in programs:
            program.start()
            undo.callback(program.kill, with_children=True)
            undo.callback(program.stop)
        return programs


def _waits(connection: psycopg.Connection[Any]) -> dict[str, float]:
    """Return how long the messages waited in each state, by the times in their rows."""
    row = connection.execute(
        """
        SELECT extract(epoch FROM max(published_at) - min(created_at))::float8,
               extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY published_at - created_at))::float8,
               extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY claimed_at - published_at))::float8,
               extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY finished_at - claimed_at))::float8
          FROM outbox_finished
         WHERE id > %s
        """,
        [_WARM_UP],
    ).fetchone()
    return dict(zip((PUBLISHED, PENDING, QUEUED, WORKED), map(float, row or ()), strict=True))


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the burst with one worker and with two, and a long way with two."""
    burst = Burst(servers, sizes.burst_messages)
    one, two = "1 worker", "2 workers"
    return [
        Experiment(
            key="burst",
            title=f"Burst of {sizes.burst_messages:,} messages, one relay; seconds from the first row",
            columns=(TOTAL, RATE, WRITTEN, PUBLISHED, DONE, PENDING, QUEUED, WORKED, EARLY, END, GROWTH),
            reference=one,
            contenders=(Contender(one, partial(burst.measure, 1)), Contender(two, partial(burst.measure, 2))),
            goals=(Goal(one, GROWTH, at_most=1.1),),
            plot=Plot("distribution", "s from the first row to the mail's acceptance", "share of mails"),
        ),
        Experiment(
            key="whole-way",
            title=f"The whole way of {sizes.whole_way_messages:,} messages that come at once, and the sizes at its end",
            columns=(TOTAL, RATE, LIVE, LIVE_INDEXES, PAST, PAST_INDEXES, EARLY, END, GROWTH),
            reference=two,
            contenders=(Contender(two, partial(Burst(servers, sizes.whole_way_messages).measure, 2)),),
            goals=(Goal(two, GROWTH, at_most=1.1),),
        ),
    ]
