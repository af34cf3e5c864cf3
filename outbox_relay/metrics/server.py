"""The relay's HTTP server: `/metrics`, `/healthz` and `/readyz`."""

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from outbox_relay.metrics.relay_metrics import RelayMetrics

_CLIENT_SECONDS: Final = 10.0

_Answer = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without http.server's lookup of our own name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _ServerOfIpv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_SECONDS

    def log_message(self, *_: object) -> None:
        """Log nothing: scrapes come every few seconds."""


def serve(address: tuple[str, int], metrics: RelayMetrics) -> WSGIServer:
    """Serve in daemon threads. Raises OSError if the address cannot be used."""
    host, port = address
    server_class = _ServerOfIpv6 if ":" in host else _Server
    server = make_server(host, port, _application(metrics), server_class, _Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def _application(metrics: RelayMetrics) -> _Answer:
    exposition: _Answer = make_wsgi_app(metrics.registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                return exposition(environ, start_response)
            case "/healthz":
                status, body = _status(holds=metrics.liveness.is_alive()), metrics.liveness.describe()
            case "/readyz":
                status, body = _status(holds=metrics.liveness.is_ready()), metrics.liveness.describe()
            case _:
                status, body = "404 Not Found", "there is /metrics, /healthz and /readyz"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{body}\n".encode()]

    return answer


def _status(*, holds: bool) -> str:
    return "200 OK" if holds else "503 Service Unavailable"
