"""Forward connections to the current primary of a Redis pair, as HAProxy does."""

import contextlib
import socket
import threading

from embedded.programs.ports import LOOPBACK

_CHUNK = 65_536


class Forwarder:
    """Forwards one port to another that may change; a change cuts what is open, unless asked to keep it."""

    def __init__(self, target_port: int) -> None:
        """Listen, and forward."""
        self._target_port = target_port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="forwarder", daemon=True).start()

    def lead_to(self, target_port: int, *, cut: bool = True) -> None:
        """Send new connections elsewhere, and end those that lead to the old place."""
        with self._lock:
            if target_port == self._target_port:
                return
            self._target_port = target_port
            if not cut:
                return
            old, self._open = self._open, set()
        for each in old:
            _end(each)

    def close(self) -> None:
        """Stop."""
        self._listener.close()
        self.lead_to(0)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with self._lock:
            port = self._target_port
        try:
            server = socket.create_connection((LOOPBACK, port), timeout=2)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._open |= {client, server}
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                sink.sendall(data)
        for each in (source, sink):
            _end(each)
        with self._lock:
            self._open -= {source, sink}


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
