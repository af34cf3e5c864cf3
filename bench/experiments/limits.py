"""What the limits of verification mails cost: signups to one domain do not wait for each other."""

from functools import partial
from typing import Final

from bench.children import run_together
from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import empty
from bench.measuring import Contender, Experiment, Goal, Measurement

RATE, CPU = "signups/s", "client CPU µs/signup"
_DATABASE: Final = "bench_limits"
_ONE, _EIGHT = "ours, eight clients in one domain", "ours, eight clients in eight domains"


def run_writers(
    servers: Servers, database_url: str, kind: str, seconds: float, *, threads: int, processes: int = 1
) -> dict[str, float]:
    """Write with several processes of this many threads at once, and return the sums of their figures."""
    settings = {"DATABASE_URL": database_url, "RQ_REDIS_URL": servers.redis.url}
    arguments = [kind, "--threads", str(threads), "--seconds", str(seconds)]
    log_file = servers.log_file(f"writers {kind}")
    figures = run_together(processes, "bench.processes.writers", arguments, settings, log_file)
    commits = sum(each["commits"] for each in figures)
    rate = sum(each["commits"] / each["seconds"] for each in figures)
    return {"rate": rate, "cpu": sum(each["cpu_seconds"] for each in figures) / commits * 1e6}


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the comparison of domains."""
    database_url = servers.new_database(_DATABASE)

    def write(kind: str) -> Measurement:
        empty(servers, database_url)
        found = run_writers(servers, database_url, kind, sizes.write_seconds, threads=4, processes=2)
        return Measurement({RATE: found["rate"], CPU: found["cpu"]})

    domains = Experiment(
        key="signup-domains",
        title="Signup's write with limits of an hour for a domain and in total, 8 at once",
        columns=(RATE, CPU),
        reference=_ONE,
        contenders=(Contender(_ONE, partial(write, "one-domain")), Contender(_EIGHT, partial(write, "own-domains"))),
        goals=(Goal(_ONE, RATE, _EIGHT, at_least=0.95),),
        repeats=sizes.repeats * 2,
    )
    return [domains]
