"""Measure whether a long history, a long backlog or an old snapshot slows the service down."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import psycopg
from rq.defaults import RQ_KEY_PREFIX

from bench.environment.history import add_finished, add_forgotten_claims, add_lost_jobs, finish_published
from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import add_messages, pending, settle
from bench.errors import ContenderFailedError
from bench.experiments.consumers import OURS_PER_SECOND
from bench.measuring import Contender, Experiment, Goal, Measurement, Plot
from bench.processes.command_lines import OUTBOX_WORKER, mails_in_flight, relay_command, rq_worker
from bench.processes.relays import run_relay
from bench.processes.watching import watch
from bench.processes.workers import RATE as MAILS
from bench.processes.workers import WorkerRuns
from embedded.programs.program import Program
from outbox_relay.broker import open_broker
from outbox_relay.loop.reaper import Reaper
from shared.outbox.messages import NOTIFY_CHANNEL, SendVerifyEmail
from shared.outbox.reaping import POSTMASTER_GRACE_SECONDS
from shared.rq_format.keys import Keys

RATE = "rows/s"
REAPED, RETURNED = "claims reaped/s", "lost jobs returned/s"
LAST, ALL = "rows/s in the last quarter", "rows/s over all rounds"

_DEADLINE_SECONDS = 600.0
_REAPED = 50_000


class Past:
    """Databases with a history of a given length, each filled at its first use."""

    def __init__(self, servers: Servers) -> None:
        """Create none yet."""
        self._servers = servers
        self._urls: dict[int, str] = {}

    def url(self, finished: int) -> str:
        """Return the URL of a database with this many finished messages."""
        if finished not in self._urls:
            self._urls[finished] = self._servers.new_database(f"bench_past_{finished}")
            with psycopg.connect(self._urls[finished], autocommit=True) as connection:
                add_finished(connection, finished)
        return self._urls[finished]


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the comparisons over history, backlog and an old snapshot."""
    past = Past(servers)
    histories = (0, sizes.finished_rows // 10, sizes.finished_rows)
    return [
        _over_history("publish", (RATE,), partial(_publish, servers, past, sizes), histories, sizes),
        _over_history("consume", (MAILS,), partial(_consume, servers, past, sizes), histories, sizes),
        _over_history("reap", (REAPED, RETURNED), partial(_reap, servers, past, sizes), histories, sizes),
        _over_backlog(servers, sizes),
        _beside_snapshot(servers, sizes),
    ]


def _over_history(
    what: str,
    columns: tuple[str, ...],
    measure: Callable[[int], Measurement],
    histories: tuple[int, ...],
    sizes: Sizes,
) -> Experiment:
    names = [f"{finished:,} finished" for finished in histories]
    return Experiment(
        key=f"history-{what}",
        title=f"Growth: {what} beside a history",
        columns=columns,
        reference=names[0],
        contenders=tuple(
            Contender(name, partial(measure, finished), at=finished)
            for name, finished in zip(names, histories, strict=True)
        ),
        goals=tuple(Goal(names[-1], column, names[0], at_least=0.9) for column in columns),
        repeats=sizes.repeats,
        plot=Plot("line", "finished messages in the database", columns[0]),
    )


def _publish(servers: Servers, past: Past, sizes: Sizes, finished: int) -> Measurement:
    database_url = past.url(finished)
    pending(database_url, sizes.relay_rows)
    servers.empty_redis()
    return Measurement({RATE: _rate(run_relay(servers, database_url, "ours", sizes.relay_rows, _DEADLINE_SECONDS))})


def _consume(servers: Servers, past: Past, sizes: Sizes, finished: int) -> Measurement:
    """Measure claims and acknowledgements as the worker makes them, with the mails in between."""
    runs = WorkerRuns(servers, past.url(finished))
    warm_up = mails_in_flight(servers)
    return runs.measure(rq_worker(OUTBOX_WORKER), warm_up + int(OURS_PER_SECOND * sizes.consume_seconds), warm_up)


def _reap(servers: Servers, past: Past, sizes: Sizes, finished: int) -> Measurement:
    database_url = past.url(finished)
    rows = min(_REAPED, sizes.relay_rows)
    servers.empty_redis()
    broker = open_broker(servers.redis.url, RQ_KEY_PREFIX, 60)
    reaper = Reaper(broker, publish_lease_seconds=30)
    try:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("TRUNCATE outbox RESTART IDENTITY")
            add_forgotten_claims(connection, rows)
            settle(connection)
            _wait_for_grace(connection)
            started = time.perf_counter()
            reaped = 0
            while taken := len(reaper.reap_running(connection)):
                reaped += taken
            reaped_in = time.perf_counter() - started
            connection.execute("TRUNCATE outbox RESTART IDENTITY")
            add_lost_jobs(connection, rows)
            settle(connection)
            started = time.perf_counter()
            returned = reaper.reap_published(connection).returned_by_epoch
            returned_in = time.perf_counter() - started
    finally:
        broker.close()
    if (reaped, returned) != (rows, rows):
        raise ContenderFailedError(f"of {rows} rows {reaped} were reaped and {returned} returned")
    return Measurement({REAPED: reaped / reaped_in, RETURNED: returned / returned_in})


def _wait_for_grace(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Wait until claims may be reaped: none is right after PostgreSQL's start."""
    connection.execute(
        "SELECT pg_sleep(greatest(0, %s - extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())))",
        [POSTMASTER_GRACE_SECONDS + 1],
    )


def _over_backlog(servers: Servers, sizes: Sizes) -> Experiment:
    database_url = servers.new_database("bench_backlog")
    backlogs = (sizes.backlog_rows // 100, sizes.backlog_rows // 10, sizes.backlog_rows)
    names = [f"{rows:,} pending" for rows in backlogs]

    def measure(rows: int) -> Measurement:
        pending(database_url, rows)
        servers.empty_redis()
        return Measurement({RATE: _rate(run_relay(servers, database_url, "ours", rows, _DEADLINE_SECONDS))})

    return Experiment(
        key="backlog",
        title="Growth: the relay drains a backlog to its end",
        columns=(RATE,),
        reference=names[0],
        contenders=tuple(
            Contender(name, partial(measure, rows), at=rows) for name, rows in zip(names, backlogs, strict=True)
        ),
        goals=(Goal(names[-1], RATE, names[0], at_least=0.9),),
        repeats=sizes.repeats,
        plot=Plot("line", "pending messages at the beginning", RATE),
    )


def _beside_snapshot(servers: Servers, sizes: Sizes) -> Experiment:
    without, beside = "no old snapshot", "an old snapshot held open"
    rounds = f"{sizes.churn_rounds} rounds of {sizes.churn_rows:,} messages"
    return Experiment(
        key="snapshot",
        title=f"Growth: {rounds} come and go beside an old snapshot",
        columns=(ALL, LAST),
        reference=without,
        contenders=(
            Contender(without, partial(_churn, servers, sizes, snapshot=False)),
            Contender(beside, partial(_churn, servers, sizes, snapshot=True)),
        ),
        goals=(Goal(beside, ALL, without, at_least=0.8), Goal(beside, LAST, without, at_least=0.8)),
        repeats=min(3, sizes.repeats),
    )


def _churn(servers: Servers, sizes: Sizes, *, snapshot: bool) -> Measurement:
    """Publish and finish messages in rounds; the dead rows of all rounds stay while the snapshot is open."""
    database_url = servers.new_database("bench_snapshot")
    relay = Program(relay_command(servers, database_url, "relay beside a snapshot"))
    seconds = []
    with ExitStack() as undo:
        holder = undo.enter_context(psycopg.connect(database_url))
        connection = undo.enter_context(psycopg.connect(database_url, autocommit=True))
        if snapshot:
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT FROM outbox")
        relay.start()
        undo.callback(relay.kill, with_children=True)
        undo.callback(relay.stop)
        for _ in range(sizes.churn_rounds):
            servers.empty_redis()
            add_messages(connection, sizes.churn_rows)
            seconds.append(_seconds_to_publish(servers, relay, connection, sizes.churn_rows))
            finished = finish_published(connection)
            began = time.monotonic()
            while finished < sizes.churn_rows:  # the last batch's commit comes after its push
                watch([relay], "a batch is not committed", began)
                finished += finish_published(connection)
    # Not only the last round: a rescan may or may not fall into it by chance.
    last = seconds[-max(1, len(seconds) // 4) :]
    return Measurement(
        {name: sizes.churn_rows * len(each) / sum(each) for name, each in ((ALL, seconds), (LAST, last))}
    )


def _seconds_to_publish(
    servers: Servers, relay: Program, connection: psycopg.Connection[tuple[object, ...]], rows: int
) -> float:
    """Notify the relay, and wait until all jobs are in Redis."""
    started = time.monotonic()
    connection.execute(f"NOTIFY {NOTIFY_CHANNEL}")
    with servers.redis.client() as client:
        while client.llen(Keys(RQ_KEY_PREFIX).queue(SendVerifyEmail.queue)) < rows:
            watch([relay], "jobs of a round are missing", started)
    return time.monotonic() - started


def _rate(figures: dict[str, float]) -> float:
    return figures["rows"] / figures["seconds"]
