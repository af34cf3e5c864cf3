"""The relay beside its peers: rows a second from pending to a job in Redis."""

from functools import partial

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import pending, pending_by_destination
from bench.errors import ContenderFailedError
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.processes.relays import run_relay
from shared.outbox.messages import CRITICAL
from shared.rq_format.keys import Keys

RATE, CPU = "rows/s", "CPU µs/row"


class RelayRuns:
    """Runs relays, each on a freshly filled database."""

    def __init__(self, servers: Servers, sizes: Sizes) -> None:
        """Create the database."""
        self._servers = servers
        self._sizes = sizes
        self._database_url = servers.new_database("bench_relay")

    def measure(self, name: str) -> Measurement:
        """Run one relay."""
        pending(self._database_url, self._sizes.relay_rows)
        return self._measure(name)

    def measure_destinations(self, count: int, destinations: int, blocked: int = 0) -> Measurement:
        """Run our relay with messages for so many destinations, and older ones of one that is unavailable."""
        pending_by_destination(self._database_url, count, destinations, blocked)
        return self._measure("ours")

    def _measure(self, name: str) -> Measurement:
        self._servers.empty_redis()
        figures = run_relay(self._servers, self._database_url, name, self._sizes.relay_rows, self._sizes.relay_seconds)
        with self._servers.redis.client() as client:
            _check(client, int(figures["rows"]), name)
        return Measurement(
            {RATE: figures["rows"] / figures["seconds"], CPU: figures["cpu_seconds"] / figures["rows"] * 1e6}
        )


def _check(client: Redis, rows: int, name: str) -> None:
    """Raise ContenderFailedError if the relay's jobs are not in Redis."""
    listed = client.llen(Keys(RQ_KEY_PREFIX).queue(CRITICAL))
    if listed != rows:
        raise ContenderFailedError(f"{name} says that it moved {rows} rows, Redis has {listed} jobs")


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the comparison of relays."""
    runs = RelayRuns(servers, sizes)
    names = {
        "row by row: enqueue, UPDATE, commit": "row-by-row",
        "enqueue one by one, one UPDATE a batch": "one-by-one",
        "enqueue_many, one UPDATE a batch": "many",
        "ours": "ours",
        "floor: same reads and bytes, no logic": "floor",
    }
    contenders = [Contender(name, partial(runs.measure, relay)) for name, relay in names.items()]
    contenders.append(Contender("txoutbox, tuned", partial(runs.measure, "txoutbox"), package="txoutbox"))
    usual, _, many, ours, floor, txoutbox = [contender.name for contender in contenders]
    goals = (
        Goal(ours, RATE, many, at_least=2.2),
        Goal(ours, RATE, usual, at_least=20),
        Goal(ours, RATE, floor, at_least=0.8),
        Goal(ours, RATE, txoutbox, at_least=4),
    )
    return [
        Experiment(
            key="relay",
            title=f"Relay, one process, {sizes.relay_rows:,} pending rows",
            columns=(RATE, CPU),
            reference=ours,
            contenders=tuple(contenders),
            goals=goals,
            repeats=sizes.repeats,
        ),
        _by_destination(runs, sizes),
    ]


def _by_destination(runs: RelayRuns, sizes: Sizes) -> Experiment:
    """Return the comparison of our relay with one destination, several, and more than it looks at in a pass."""
    rows, many = sizes.relay_rows, sizes.backlog_rows
    one, ten, names = (
        "one destination",
        f"ten destinations, one of them unavailable with {many:,} pending rows",
        f"{many:,} destinations",
    )
    return Experiment(
        key="relay-destinations",
        title=f"Relay, one process, {rows:,} pending rows by destination",
        columns=(RATE, CPU),
        reference=one,
        contenders=(
            Contender(one, partial(runs.measure_destinations, rows, 1)),
            Contender(ten, partial(runs.measure_destinations, rows, 9, many)),
            Contender(names, partial(runs.measure_destinations, many, many)),
        ),
        goals=(
            Goal(ten, RATE, one, at_least=0.9),
            Goal(names, RATE, one, at_least=0.5),
        ),
        repeats=sizes.repeats,
    )
