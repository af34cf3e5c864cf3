"""A whole signup over HTTP: with its message, without it, and with an enqueue after the commit instead."""

import statistics
import sys
import time
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Final

import httpx

from bench.children import environment
from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.workload import empty
from bench.errors import ContenderFailedError
from bench.measuring import Contender, Experiment, Goal, Measurement
from embedded.errors import tail
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from embedded.stack import ROOT

MEDIAN, P99 = "median ms", "p99 ms"
_DATABASE: Final = "bench_signup"
_WARM_UP: Final = 20
_OURS, _WITHOUT_LIMITS = "ours", "without limits of mails"
_ALONE, _ENQUEUE = "without the message: the user alone", "the user, then RQ's enqueue"
_APPS: Final = {
    _OURS: "api:create_app()",
    _WITHOUT_LIMITS: "bench.processes.altered_api:without_limits()",
    _ALONE: "bench.processes.altered_api:user_alone()",
    _ENQUEUE: "bench.processes.altered_api:enqueue_after_commit()",
}


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the comparison of whole signups."""
    database_url = servers.new_database(_DATABASE)
    over_http = Experiment(
        key="signup-http",
        title="A signup over HTTP: gunicorn, one client after the other",
        columns=(MEDIAN, P99),
        reference=_OURS,
        contenders=tuple(
            Contender(name, partial(_sign_up, servers, database_url, application, sizes.latency_samples))
            for name, application in _APPS.items()
        ),
        goals=(
            Goal(_OURS, MEDIAN, _WITHOUT_LIMITS, at_most=1.05),
            Goal(_WITHOUT_LIMITS, MEDIAN, _ALONE, at_most=1.05),
        ),
        repeats=sizes.repeats * 2,
    )
    return [over_http]


def _sign_up(servers: Servers, database_url: str, application: str, samples: int) -> Measurement:
    """Time signups from the request's first byte to the answer's last one, on a kept connection."""
    empty(servers, database_url)
    with ExitStack() as undo:
        client = _api(servers, database_url, application, undo)
        undo.callback(client.close)
        names = count()
        milliseconds = [_time_one(client, f"u{next(names)}") for _ in range(_WARM_UP + samples)][_WARM_UP:]
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return Measurement({MEDIAN: statistics.median(milliseconds), P99: cuts[-1]})


def _time_one(client: httpx.Client, name: str) -> float:
    person = {
        "username": f"{name}_of_bench",
        "full_name": "Ada Lovelace",
        "email": f"{name}@example.com",
        "password": "correct horse battery",
    }
    began = time.perf_counter()
    answer = client.post("/v1/users", json=person)
    seconds = time.perf_counter() - began
    if answer.status_code != httpx.codes.CREATED:
        raise ContenderFailedError(f"a signup was answered with {answer.status_code}")
    return seconds * 1000


def _api(servers: Servers, database_url: str, application: str, undo: ExitStack) -> httpx.Client:
    """Start gunicorn with the project's own configuration, and yield a client once it answers."""
    port = free_port()
    settings = {
        "DATABASE_URL": database_url,
        "RQ_REDIS_URL": servers.redis.url,
        "SECRET_KEY": "the key of the bench: 32 characters and more",
        "PORT": str(port),
    }
    log_file = servers.log_file(f"gunicorn {application}")
    argv = [sys.executable, "-m", "gunicorn", application]
    program = Program(Command("gunicorn", argv, environment(settings), ROOT, log_file))
    program.start()
    undo.callback(program.kill, with_children=True)
    undo.callback(program.stop)
    client = httpx.Client(base_url=f"http://{LOOPBACK}:{port}")

    def answers() -> bool:
        try:
            return client.get("/healthz").is_success
        except httpx.TransportError:
            return False

    try:
        program.wait_ready(answers)
    except Exception as exc:
        raise ContenderFailedError(f"gunicorn does not answer\n{tail(log_file)}") from exc
    return client
