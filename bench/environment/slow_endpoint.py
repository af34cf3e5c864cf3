"""A webhook endpoint that answers 200 after a long time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from embedded.programs.ports import LOOPBACK

_OK: Final = 200


class SlowEndpoint:
    """A server in this process; use `running()`.

    Attributes:
        answered: how many requests it has answered.

    """

    def __init__(self, seconds: float) -> None:
        """Take a port, and no request yet."""
        self.answered = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            def do_POST(self) -> None:
                """Wait, then answer."""
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                endpoint.wait(seconds)
                with suppress(OSError):  # the worker was ended
                    self.send_response(_OK)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                endpoint.count()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                """Write nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)

    @classmethod
    @contextmanager
    def running(cls, seconds: float) -> Iterator["SlowEndpoint"]:
        """Take requests while the block runs; what is open at its end is answered at once."""
        endpoint = cls(seconds)
        thread = threading.Thread(target=endpoint._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint._ended.set()
            endpoint._server.shutdown()
            endpoint._server.server_close()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/"

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the end."""
        self._ended.wait(seconds)

    def count(self) -> None:
        """Count an answer."""
        with self._lock:
            self.answered += 1
