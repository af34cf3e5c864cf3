"""/metrics: the API's requests and the outbox's state. It shows a missing relay too.

With several gunicorn processes, each scrape adds up what all of them counted. gunicorn.conf.py creates the folder
through which prometheus-client shares the counts.
"""

import os
import time
from typing import Any, Final

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from api.database.engine import DatabaseUnavailableError, SchemaMissingError
from api.database.side_connections import DatabaseSlowError, GrantMissingError, SideConnections
from shared.database.read_transaction import read_transaction
from shared.outbox.operations.destination_stats import read_destination_stats
from shared.outbox.operations.mail_stats import read_mail_stats
from shared.outbox.operations.prometheus import OutboxCollector, Reading
from shared.outbox.operations.stats import read_dependency_status, read_live_states

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_NO_ROUTE: Final = "none"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


def add_metrics(app: Flask, connections: SideConnections, registry: CollectorRegistry) -> None:
    """Count the application's requests in the registry, and serve /metrics."""
    requests = Counter(
        "http_requests",
        "Requests by method, route and status",
        ["method", "route", "status"],
        registry=registry,
    )
    seconds = Histogram(
        "http_request_seconds", "Time that a request took", ["route"], buckets=_BUCKETS, registry=registry
    )

    @app.before_request
    def start() -> None:
        g.metrics_started = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        # The route's pattern, not the path: requests must not be able to create labels.
        route = _NO_ROUTE if request.url_rule is None else request.url_rule.rule
        method = request.method if request.method in _METHODS else "other"
        requests.labels(method, route, str(response.status_code)).inc()
        if "metrics_started" in g:
            seconds.labels(route).observe(time.perf_counter() - g.metrics_started)
        return response

    app.register_blueprint(_blueprint(registry, connections))


def _blueprint(own: CollectorRegistry, connections: SideConnections) -> Blueprint:
    blueprint = Blueprint("metrics", __name__)
    outbox = CollectorRegistry()
    outbox.register(OutboxCollector(lambda: _read(connections)))

    @blueprint.get("/metrics")
    def metrics() -> Response:
        counted = generate_latest(_of_all_processes() if SHARED_FOLDER in os.environ else own)
        return Response(counted + generate_latest(outbox), content_type=CONTENT_TYPE_LATEST)

    return blueprint


def _of_all_processes() -> CollectorRegistry:
    registry = CollectorRegistry()
    collector: Any = MultiProcessCollector
    collector(registry)
    return registry


def _read(connections: SideConnections) -> Reading:
    try:
        with connections.borrow() as connection, read_transaction(connection):
            live = read_live_states(connection)
            return Reading(
                is_up=True,
                live=live,
                destinations=read_destination_stats(connection, live),
                dependencies=read_dependency_status(connection),
                mails=read_mail_stats(connection),
            )
    except DatabaseSlowError as exc:
        return Reading(is_up=True if exc.was_asked else None, unreadable="timeout")
    except SchemaMissingError:
        return Reading(is_up=True, unreadable="schema")
    except GrantMissingError:
        return Reading(is_up=True, unreadable="grant")
    except DatabaseUnavailableError:
        return Reading(is_up=False)
