"""Run a relay until nothing is pending."""

from bench.children import run_together
from bench.environment.servers import Servers


def run_relay(servers: Servers, database_url: str, name: str, rows: int, seconds: float) -> dict[str, float]:
    """Run a relay in a process of its own and return its figures."""
    settings = {"DATABASE_URL": database_url, "RQ_REDIS_URL": servers.redis.url}
    arguments = [name, "--rows", str(rows), "--seconds", str(seconds)]
    return run_together(1, "bench.relays", arguments, settings, servers.log_file(f"relay {name}"))[0]
