"""The services that the run's own tasks ask: one answers after a long time, one never takes a connection."""

import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from tests.chaos.checking.evidence import Call
from tests.chaos.tasks import KEY_HEADER

_LOOPBACK: Final = "127.0.0.1"


class SlowService:
    """Answers each request with 200 after so many seconds, and records when it came."""

    def __init__(self, seconds: float) -> None:
        self.calls: list[Call] = []
        self._ended = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def do_POST(self) -> None:
                service.calls.append(Call(int(self.path[1:]), self.headers.get(KEY_HEADER, ""), time.time()))
                service._ended.wait(seconds)
                with suppress(OSError):  # a caller that was killed
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                """Write nothing."""

        self._server = ThreadingHTTPServer((_LOOPBACK, 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="slow service", daemon=True)

    def start(self) -> None:
        """Take requests."""
        self._thread.start()

    def stop(self) -> None:
        """Answer all open requests at once, and take no more."""
        self._ended.set()
        if self._thread.ident is not None:
            self._server.shutdown()
        self._server.server_close()


class DownService:
    """A port that is in use, so that nothing else gets it, and refuses every connection."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind((_LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]

    def stop(self) -> None:
        """Give the port back."""
        self._socket.close()
