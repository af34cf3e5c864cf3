"""A slow destination beside the mails, and a limited one whose workers are stopped and started."""

import random
import statistics
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.environment.servers import Servers
from bench.environment.sizes import Sizes
from bench.environment.slow_endpoint import SlowEndpoint
from bench.environment.workload import add_users, settle
from bench.errors import ContenderFailedError
from bench.jobs.ours import TIMES_FILE, LimitedJob
from bench.measuring import Contender, Experiment, Goal, Measurement
from bench.processes.service import Service
from embedded.programs.ports import LOOPBACK
from shared.outbox.destinations.control import set_limit
from shared.outbox.messages import CRITICAL, NOTIFY_CHANNEL, DeliverWebhook, SendVerifyEmail
from shared.webhooks import endpoints
from shared.webhooks.events import USER_VERIFIED, webhook_destination
from shared.webhooks.signing import new_secret

P50, P99 = "p50 ms", "p99 ms"
MOST, MEAN = "most jobs in a second", "jobs/s"
LIMIT_PER_SECOND: Final = 5
SLOW_SECONDS: Final = 9.0

_WARM_UP: Final = 20
_IDLE_SECONDS: Final = (0.005, 0.025)
_WAIT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.002
_RESTART_SECONDS: Final = 2.0
_WORKERS: Final = 2


def experiments(servers: Servers, sizes: Sizes) -> list[Experiment]:
    """Return both comparisons."""
    return [_slow_endpoint(servers, sizes), _limit(servers, sizes)]


def _slow_endpoint(servers: Servers, sizes: Sizes) -> Experiment:
    alone, beside = "no webhooks", f"{sizes.waiting_webhooks:,} webhooks pending"
    samples = 3 * sizes.latency_samples
    return Experiment(
        key="slow-endpoint",
        title=f"From a mail's commit to its acceptance, beside an endpoint that answers after {SLOW_SECONDS:g} s",
        columns=(P50, P99),
        reference=alone,
        contenders=(
            Contender(alone, partial(_mails, servers, samples, 0)),
            Contender(beside, partial(_mails, servers, samples, sizes.waiting_webhooks)),
        ),
        goals=(Goal(beside, P99, alone, at_most=1.5),),
        # A single mail that the machine delays decides a p99: more rounds, of which the median counts.
        repeats=sizes.repeats * 2,
    )


def _mails(servers: Servers, samples: int, webhooks: int) -> Measurement:
    """Commit one mail after the other and wait for each, with the defaults of relay and worker."""
    database_url = servers.new_database("bench_destinations")
    servers.empty_redis()
    servers.sink.begin()
    settings = {"WEBHOOK_ALLOWED_NETWORKS": f"{LOOPBACK}/32"}
    mails = samples + _WARM_UP
    with psycopg.connect(database_url, autocommit=True) as connection, SlowEndpoint.running(SLOW_SECONDS) as endpoint:
        add_users(connection, mails)
        if webhooks:
            _add_webhooks(connection, endpoint.url, webhooks)
        settle(connection)
        with Service.running(servers, database_url, 1, settings) as service:
            deadline = time.monotonic() + _WAIT_SECONDS
            # From then on the worker knows that the endpoint is slow.
            while webhooks and not endpoint.answered:
                service.check("the endpoint's first answer", deadline)
                time.sleep(_LOOK_SECONDS)
            committed = [_mail(servers, service, connection, number) for number in range(1, mails + 1)]
    latencies = [(at - began) * 1000 for at, began in zip(servers.sink.times(), committed, strict=True)][_WARM_UP:]
    p99 = statistics.quantiles(latencies, n=100, method="inclusive")[-1]
    return Measurement({P50: statistics.median(latencies), P99: p99}, tuple(latencies))


def _mail(servers: Servers, service: Service, connection: psycopg.Connection[Any], number: int) -> float:
    """Commit a mail, wait until it is accepted, and return when it was committed."""
    time.sleep(random.uniform(*_IDLE_SECONDS))  # noqa: S311 - no secret
    connection.execute(
        "INSERT INTO outbox (task, queue, payload) VALUES (%s, %s, jsonb_build_object('username', %s::text))",
        [SendVerifyEmail.task, CRITICAL, f"user{number}"],
    )
    committed = time.monotonic()
    connection.execute(f"NOTIFY {NOTIFY_CHANNEL}")
    while servers.sink.count() < number:
        service.check(f"mail {number}", committed + _WAIT_SECONDS)
        time.sleep(_LOOK_SECONDS)
    return committed


def _add_webhooks(connection: psycopg.Connection[Any], url: str, webhooks: int) -> None:
    id_ = endpoints.add(connection, "slow", url, [USER_VERIFIED], new_secret())
    assert id_ is not None  # noqa: S101 - the database is new
    connection.execute(
        """
        INSERT INTO outbox (task, queue, destination, payload)
        SELECT %s, %s, %s, jsonb_build_object('endpoint_id', %s::bigint, 'body', '{}') FROM generate_series(1, %s)
        """,
        [DeliverWebhook.task, DeliverWebhook.queue, webhook_destination(id_), id_, webhooks],
    )


def _limit(servers: Servers, sizes: Sizes) -> Experiment:
    steady = f"{_WORKERS} workers"
    restarted = f"{_WORKERS} workers, one of them restarted every {_RESTART_SECONDS:g} s"
    burst = LIMIT_PER_SECOND
    return Experiment(
        key="limit",
        title=f"A limit of {LIMIT_PER_SECOND} a second, {sizes.limited_jobs:,} pending",
        columns=(MOST, MEAN),
        reference=steady,
        contenders=(
            Contender(steady, partial(_limited, servers, sizes, restarts=False)),
            Contender(restarted, partial(_limited, servers, sizes, restarts=True)),
        ),
        goals=(
            *(Goal(name, MOST, at_most=LIMIT_PER_SECOND + burst) for name in (steady, restarted)),
            Goal(steady, MEAN, at_least=0.8 * LIMIT_PER_SECOND),
        ),
        repeats=sizes.repeats,
    )


def _limited(servers: Servers, sizes: Sizes, *, restarts: bool) -> Measurement:
    """Run jobs that record when they began, and return how many began in the second with the most of them."""
    database_url = servers.new_database("bench_destinations")
    servers.empty_redis()
    file = servers.folder / "times"
    file.unlink(missing_ok=True)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO outbox (task, queue, destination, payload)
            SELECT %s, %s, %s, jsonb_build_object('number', n) FROM generate_series(1, %s) AS n
            """,
            [LimitedJob.task, LimitedJob.queue, LimitedJob.destination, sizes.limited_jobs],
        )
        set_limit(connection, LimitedJob.destination, max_per_second=LIMIT_PER_SECOND, max_in_flight=None)
        settle(connection)
    settings = {"OUTBOX_TASKS": "bench.jobs.ours", TIMES_FILE: str(file)}
    with Service.running(servers, database_url, _WORKERS, settings) as service:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not _times(file):
            service.check("the first job", deadline)
            time.sleep(_LOOK_SECONDS)
        ends = time.monotonic() + sizes.limit_seconds
        for turn in count():
            time.sleep(max(0.0, min(_RESTART_SECONDS, ends - time.monotonic())))
            if time.monotonic() >= ends:
                break
            service.check("the end", ends + _WAIT_SECONDS)
            if restarts:
                service.restart(turn % _WORKERS)
    times = _times(file)
    if len(times) < 2:  # noqa: PLR2004 - one moment is no rate
        raise ContenderFailedError(f"{len(times)} jobs ran")
    return Measurement({MOST: most_in_a_second(times), MEAN: (len(times) - 1) / (times[-1] - times[0])})


def _times(file: Path) -> list[float]:
    """Return when jobs began, in their order."""
    return sorted(map(float, file.read_text().split())) if file.exists() else []


def most_in_a_second(times: list[float]) -> int:
    """Return how many of these moments, in their order, lie in the second that has the most of them."""
    most = first = 0
    for number, at in enumerate(times):
        while at - times[first] >= 1:
            first += 1
        most = max(most, number - first + 1)
    return most
