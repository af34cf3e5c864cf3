"""A webhook endpoint that answers with the bytes that a test gives it, as slowly as the test likes."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from embedded.programs.ports import LOOPBACK

Script = Callable[[], Iterable[bytes]]
"""Yields what is written after a request; it may take its time between two pieces."""


def answering(status: int, *headers: str, body: bytes = b"") -> Script:
    """Return the script of a plain answer."""
    lines = [f"HTTP/1.1 {status} X", *headers, f"Content-Length: {len(body)}", "", ""]
    return lambda: ["\r\n".join(lines).encode() + body]


class ScriptedEndpoint:
    """Reads a request, writes what its script yields, and closes the connection.

    Attributes:
        port: where it listens, on the loopback interface.
        requests: the requests that it got, each as its bytes.
        stopped: set when the test is over, for scripts that wait.

    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.stopped = threading.Event()
        self._tls = tls
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stopped.set()
        # Closing alone would not wake the thread that accepts.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._start(lambda accepted=connection: self._serve(accepted))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(10)
            stream = connection if self._tls is None else self._tls.wrap_socket(connection, server_side=True)
            with stream:
                self.requests.append(_read_request(stream))
                for piece in self.script():
                    stream.sendall(piece)


def _read_request(stream: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request and (piece := stream.recv(65_536)):
        request += piece
    head, _, body = request.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length and (piece := stream.recv(65_536)):
        body += piece
        request += piece
    return request
