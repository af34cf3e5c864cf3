"""The service's processes, on servers that the test names."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from embedded.programs.program import Program
from tests.programs.api_service import ALICE
from tests.programs.preloading import Preloaded
from tests.programs.processes import started, worker_module, worker_settings


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers are.

    Attributes:
        listen: the database where the relay listens for notifications; the relay's own if it is None.
        worker_database: the relay's database if it is None.

    """

    database: str
    redis: str
    smtp: str
    listen: str | None = None
    worker_database: str | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A relay and a worker."""

    relay: Program
    worker: Program

    @property
    def log(self) -> str:
        """What both have logged."""
        return "".join(program.command.log_file.read_text() for program in (self.relay, self.worker))


@contextmanager
def pipeline(servers: Servers, origin: Preloaded | None, folder: Path, **worker: str) -> Iterator[Pipeline]:
    """Start a relay with its defaults, and a worker with these settings of its own."""
    relay_settings = {
        "DATABASE_URL": servers.database,
        "OUTBOX_LISTEN_URL": servers.listen or servers.database,
        "RQ_REDIS_URL": servers.redis,
    }
    settings = worker_settings(servers.worker_database or servers.database, servers.redis, servers.smtp)
    argv = [sys.executable, "-m", "outbox_relay"]
    with (
        started(argv, relay_settings, folder / "relay.log", origin) as relay,
        started(worker_module(), {**settings, **worker}, folder / "worker.log", origin) as started_worker,
    ):
        yield Pipeline(relay, started_worker)


def sign_up(client: httpx.Client, names: Sequence[str]) -> list[int]:
    """Sign them up, four at once, and return the status codes of the answers."""

    def one(name: str) -> int:
        wanted = {**ALICE, "username": name, "email": f"{name}@example.com"}
        return client.post("/v1/users", json=wanted, timeout=30).status_code

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, names))
