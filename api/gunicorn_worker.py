"""The API's worker process: gunicorn's own, in which no client holds another up by doing nothing.

- A connection over which nothing comes holds no thread. Where there is no place for a new one, the one that has been
  idle for longest makes room.
- A stop cuts nobody off.
- One request gets one answer.
"""

import errno
from collections import deque
from functools import partial
from selectors import EVENT_READ
from socket import SHUT_WR
from time import monotonic
from typing import Any, Final

from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding
from gunicorn.workers.gthread import TConn, ThreadWorker

_FIRST_REQUEST_SECONDS: Final = 10
"""How long a new connection may be silent at least, however short the time is for which one is kept."""

_END_SECONDS: Final = 2.0
_END_BYTES: Final = 64 * 1024
"""What is read of a connection after its last answer, so that the answer is not cut off (RFC 9112, section 9.6)."""

_NO_MORE_FILES: Final = (errno.EMFILE, errno.ENFILE)
_IPV4_MAPPED: Final = "::ffff:"


class _Connection(TConn):  # type: ignore[misc]
    """A connection that waits in its worker's poller for the client's end."""

    def __init__(self, worker: "DrainingWorker", *of_tconn: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        super().__init__(worker.cfg, *of_tconn)
        self._worker = worker
        self.bytes_after_end = 0

    def close(self, graceful: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's own signature
        """Close it; gracefully: once the client has ended its side too."""
        if graceful:
            self._worker.end(self)
        else:
            super().close()


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """Answers everybody who is connected when it is stopped, and then refuses connections at once.

    gunicorn's worker leaves what waits in the kernel's queue, and keeps the socket open until its last request is
    answered. So a client that connects during a stop waits for up to graceful_timeout, and is cut off without an
    answer. A refused connection is what a proxy can repeat elsewhere: nothing was sent.

    gunicorn's worker also lets a new connection hold a thread for five seconds until something comes, and lets one
    whose client does not end its side hold the loop that accepts for two. Here both wait in that loop's poller.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Begin without connections."""
        super().__init__(*args, **kwargs)
        self._ending: deque[_Connection] = deque()

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's own signature
        """Take or leave new connections; in a stop take those that wait, and close the socket."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                while self.accept(listener):
                    pass
                listener.close()

    def accept(self, listener: Any) -> bool:  # noqa: ANN401 - gunicorn has no types
        """Take a new connection and wait for its request; return whether there was one."""
        if self.nr_conns >= self.worker_connections - 1:
            self._close_longest_idle()
        try:
            sock, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as exc:
            if exc.errno in _NO_MORE_FILES and self._close_longest_idle():
                return False
            raise
        self.nr_conns += 1
        connection = _Connection(self, sock, _plain(address), listener.getsockname())
        connection.timeout = monotonic() + max(self.cfg.keepalive, _FIRST_REQUEST_SECONDS)
        self.pending_conns.append(connection)
        self.poller.register(sock, EVENT_READ, partial(self.on_pending_socket_readable, connection))
        return True

    def _close_longest_idle(self) -> bool:
        """Close a connection over which nothing comes; return whether there was one."""
        # Those that end have had their answer; of the others the one that may be closed first has waited longest.
        queues = (
            [self._ending] if self._ending else [each for each in (self.keepalived_conns, self.pending_conns) if each]
        )
        if not queues:
            return False
        self._close(min(queues, key=lambda queue: queue[0].timeout).popleft())
        return True

    def _close(self, connection: _Connection) -> None:
        self.poller.unregister(connection.sock)
        self.nr_conns -= 1
        connection.close()

    def end(self, connection: _Connection) -> None:
        """End our side of a connection, and read on for a while: a reset would take the last answer with it."""
        try:
            connection.sock.shutdown(SHUT_WR)
        except OSError:
            connection.close()
            return
        connection.sock.settimeout(0)
        connection.timeout = monotonic() + _END_SECONDS
        self.nr_conns += 1
        self._ending.append(connection)
        self.poller.register(connection.sock, EVENT_READ, partial(self._read_after_end, connection))

    def _read_after_end(self, connection: _Connection, sock: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        try:
            data = sock.recv(_END_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.bytes_after_end += len(data)
        if not data or connection.bytes_after_end > _END_BYTES:
            self._ending.remove(connection)
            self._close(connection)

    def murder_pending(self) -> None:
        """Close what has been silent, or been ending, for too long."""
        super().murder_pending()
        while self._ending and self._ending[0].timeout <= monotonic():
            self._close(self._ending.popleft())

    def _cap_keepalive(self, deadline: float) -> None:
        """In a stop, close connections over which nothing comes by then: kept ones, and silent ones too."""
        super()._cap_keepalive(deadline)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, deadline)

    def handle_request(self, req: Any, conn: Any) -> bool:  # noqa: ANN401 - gunicorn has no types
        """Answer a request; say so in the answer where the connection ends since its body could not be read."""
        should_close = req.should_close
        req.should_close = lambda: req.body.failed or should_close()
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:  # noqa: ANN401, FBT001 - gunicorn's own signature
        """Return whether the connection may be kept; not where a body that the application left unread is malformed.

        gunicorn would send a second answer about it, which the client would take for that to its next request.
        """
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except Exception as exc:  # noqa: BLE001 - whatever it is: the request is answered
            self.log.debug("Closing connection: the rest of a body could not be read: %s", type(exc).__name__)
            return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:  # noqa: ANN401 - gunicorn has no types
        """Answer what never reaches the application; with 400, not 501, to a coding that the client made up."""
        if isinstance(exc, UnsupportedTransferCoding):
            exc = InvalidHeader("Transfer-Encoding", req=req)
        super().handle_error(req, client, addr, exc)


def _plain(address: Any) -> Any:  # noqa: ANN401 - a socket's own, which may be a text
    """Return a client's address; that of an IPv4 client at a socket for both as it is at one for IPv4."""
    if not isinstance(address, tuple) or not address[0].startswith(_IPV4_MAPPED):
        return address
    return address[0].removeprefix(_IPV4_MAPPED), address[1]
