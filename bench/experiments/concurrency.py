"""Several relays and several workers side by side."""

from functools import partial

from rq.defaults import RQ_KEY_PREFIX

from bench.children import run_together
from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import pending
from bench.errors import ContenderFailedError
from bench.experiments.consumers import OURS_PER_SECOND
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.processes.command_lines import OUTBOX_WORKER, mails_in_flight, rq_worker
from bench.processes.workers import RATE as MAILS
from bench.processes.workers import WorkerRuns
from shared.outbox.messages import CRITICAL
from shared.rq_format.keys import Keys

ROWS = "rows/s"
_COUNTS = (1, 2, 4)
_DEADLINE_SECONDS = 300.0


def run_relays(servers: Servers, database_url: str, count: int, rows: int) -> Measurement:
    """Drain the outbox with this many relays at once. Raises ContenderFailedError if a row was not pushed once."""
    pending(database_url, rows)
    servers.empty_redis()
    settings = {"DATABASE_URL": database_url, "RQ_REDIS_URL": servers.redis.url}
    arguments = ["ours", "--rows", str(rows), "--seconds", str(_DEADLINE_SECONDS)]
    figures = run_together(count, "bench.relays", arguments, settings, servers.log_file("relays"))
    with servers.redis.client() as client:
        pushed = client.llen(Keys(RQ_KEY_PREFIX).queue(CRITICAL))
    if pushed != rows or sum(each["rows"] for each in figures) != rows:
        raise ContenderFailedError(f"{count} relays pushed {pushed} jobs for {rows} rows")
    return Measurement({ROWS: rows / max(each["seconds"] for each in figures)})


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return both comparisons."""
    return [_relays(servers, sizes), _workers(servers, sizes)]


def _relays(servers: Servers, sizes: Sizes) -> Experiment:
    database_url = servers.new_database("bench_relays")
    names = [f"{count} relay{'s' if count > 1 else ''}" for count in _COUNTS]
    return Experiment(
        key="relays",
        title=f"Relays side by side, {sizes.relay_rows:,} pending rows, each pushed once",
        columns=(ROWS,),
        reference=names[0],
        contenders=tuple(
            Contender(name, partial(run_relays, servers, database_url, count, sizes.relay_rows), at=count)
            for name, count in zip(names, _COUNTS, strict=True)
        ),
        goals=(Goal(names[1], ROWS, names[0], at_least=1), Goal(names[2], ROWS, names[0], at_least=1)),
        repeats=sizes.repeats,
    )


def _workers(servers: Servers, sizes: Sizes) -> Experiment:
    runs = WorkerRuns(servers)
    in_flight = mails_in_flight(servers)
    mails = int(OURS_PER_SECOND * sizes.consume_seconds * 1.5)
    names = [f"{count} rq worker{'s' if count > 1 else ''}" for count in _COUNTS]

    def measure(count: int) -> Measurement:
        warm_up = max(in_flight * count, mails // 10)
        return runs.measure(rq_worker(OUTBOX_WORKER, count), warm_up + mails, warm_up)

    return Experiment(
        key="workers",
        title="Worker processes side by side, a mail server that answers at once",
        columns=(MAILS,),
        reference=names[0],
        contenders=tuple(
            Contender(name, partial(measure, count), at=count) for name, count in zip(names, _COUNTS, strict=True)
        ),
        goals=(Goal(names[1], MAILS, names[0], at_least=1),),
        repeats=sizes.repeats,
    )
