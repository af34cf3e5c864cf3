"""What the limits of verification mails cost a signup, and whether signups of one domain wait for each other."""

import statistics
import sys
import time
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Final

import httpx

from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.errors import ContenderFailedError
from bench.experiments.writing import CPU, RATE, empty, run_writers
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.processes.children import environment
from embedded.errors import tail
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from embedded.stack import ROOT

MEDIAN, P99 = "median ms", "p99 ms"
_DATABASE: Final = "bench_limits"
_WARM_UP: Final = 20
_ONE, _EIGHT = "ours, eight clients in one domain", "ours, eight clients in eight domains"
_OURS, _WITHOUT = "ours", "the same without limits of mails"
_APPS: Final = {_OURS: "api:create_app()", _WITHOUT: "bench.processes.signup_without_limits:create_app()"}


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return the comparison of domains, and the signup over HTTP."""
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
    over_http = Experiment(
        key="signup-http",
        title="A signup over HTTP: gunicorn, one client after the other",
        columns=(MEDIAN, P99),
        reference=_OURS,
        contenders=tuple(
            Contender(name, partial(_sign_up, servers, database_url, application, sizes.latency_samples))
            for name, application in _APPS.items()
        ),
        goals=(Goal(_OURS, MEDIAN, _WITHOUT, at_most=1.05),),
        repeats=sizes.repeats * 2,
    )
    return [domains, over_http]


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
    """Start gunicorn with the project's own configuration, and give a client once it answers."""
    port = free_port()
    settings = {
        "DATABASE_URL": database_url,
        "SECRET_KEY": "the key of the bench: 32 characters and more",
        "PORT": str(port),
    }
    log_file = servers.log_file(f"gunicorn {application.partition(':')[0]}")
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
