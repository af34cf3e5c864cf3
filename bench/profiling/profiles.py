"""Profiles of relay and worker: the functions found running, by their share."""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.children import run_together
from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import pending
from bench.experiments.consumers import OURS_PER_SECOND
from bench.measuring import Measurement
from bench.processes.command_lines import OUTBOX_WORKER, WORKER_ARGV, Consumer, mails_in_flight
from bench.processes.workers import WorkerRuns

_SHOWN: Final = 15

Table = tuple[str, list[tuple[str, float]]]
"""A table of a profile: its title, and each function with its share of all samples."""


def profile_relay(servers: Servers, sizes: Sizes, folder: Path) -> None:
    """Drain a backlog with the relay."""
    database_url = servers.new_database("bench_profile")
    pending(database_url, sizes.backlog_rows)
    servers.empty_redis()
    settings = {"DATABASE_URL": database_url, "RQ_REDIS_URL": servers.redis.url}
    arguments = [str(folder), "bench.relays", "ours", "--rows", str(sizes.backlog_rows), "--seconds", "20"]
    run_together(1, "bench.profiling.profiler", arguments, settings, servers.log_file("profile"))


def profile_worker(servers: Servers, sizes: Sizes, folder: Path) -> Measurement:
    """Send mails with one `rq worker critical default` of our class, to a server that answers at once."""
    argv = [sys.executable, "-m", "bench.profiling.profiler", folder, *WORKER_ARGV]
    mails = int(OURS_PER_SECOND * sizes.consume_seconds * 2)
    worker = Consumer(argv, settings={"RQ_WORKER_CLASS": OUTBOX_WORKER})
    warm_up = mails_in_flight(servers)
    return WorkerRuns(servers).measure(worker, mails + warm_up, warm_up)


PROFILES: Final[dict[str, Callable[[Servers, Sizes, Path], object]]] = {
    "relay": profile_relay,
    "worker": profile_worker,
}


def profile(name: str, servers: Servers, sizes: Sizes) -> Iterator[Table]:
    """Run one of the profiles and return its two tables: by our own functions, and by the innermost of all."""
    with tempfile.TemporaryDirectory(prefix="outbox-profile-") as folder:
        PROFILES[name](servers, sizes, Path(folder))
        counted = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
    titles = {"ours": "our function, with what it calls outside the project", "leaves": "innermost function"}
    for key, title in titles.items():
        total: Counter[str] = Counter()
        for each in counted:
            total.update(each[key])
        samples = total.total()
        yield title, [(function, count / samples) for function, count in total.most_common(_SHOWN)]
