"""The API, a relay and a worker as processes, on given servers."""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from embedded.programs import Program
from tests.api_service import ALICE
from tests.gunicorn import gunicorn
from tests.preloading import Preloaded
from tests.processes import started, worker_module, worker_settings


@dataclass(frozen=True, slots=True)
class Origins:
    """What processes are forked from."""

    api: Preloaded
    service: Preloaded


@dataclass(frozen=True, slots=True)
class Addresses:
    """The servers, as each process is to reach them."""

    api_database: str
    relay_database: str
    worker_database: str
    listen: str
    redis: str
    smtp: str

    @classmethod
    def of(cls, database: str, redis: str, smtp: str) -> "Addresses":
        """Return one database address for all."""
        return cls(database, database, database, database, redis, smtp)


@dataclass(frozen=True, slots=True)
class RunningService:
    """The processes, and a client of the API."""

    client: httpx.Client
    relay: Program
    worker: Program

    def sign_up_all(self, names: list[str]) -> list[int]:
        """Sign them up, four at once, and return the answers' status codes."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self._sign_up, names))

    def _sign_up(self, name: str) -> int:
        request = {**ALICE, "username": name, "email": f"{name}@example.com"}
        return self.client.post("/v1/users", json=request, timeout=30).status_code

    @property
    def log(self) -> str:
        """What relay and worker have logged."""
        return "".join(program.command.log_file.read_text() for program in (self.relay, self.worker))


@contextmanager
def running_service(
    origins: Origins, addresses: Addresses, folder: Path, worker: Mapping[str, str]
) -> Iterator[RunningService]:
    """Start them with the defaults, and the worker with these settings of its own."""
    relay_settings = {
        "DATABASE_URL": addresses.relay_database,
        "OUTBOX_LISTEN_URL": addresses.listen,
        "RQ_REDIS_URL": addresses.redis,
    }
    settings = {**worker_settings(addresses.worker_database, addresses.redis, addresses.smtp), **worker}
    with ExitStack() as stack:
        client = stack.enter_context(gunicorn(origins.api, addresses.api_database, folder / "api.log"))
        relay = stack.enter_context(
            started([sys.executable, "-m", "outbox_relay"], relay_settings, folder / "relay.log", origins.service)
        )
        started_worker = stack.enter_context(started(worker_module(), settings, folder / "worker.log", origins.service))
        yield RunningService(client, relay, started_worker)
