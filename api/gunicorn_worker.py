"""The API's gunicorn worker, in which an idle client never blocks another one.

- A silent connection holds no thread. If all connections are in use, a new one replaces the one that was idle longest.
- A stop cuts off no request.
- Each request gets exactly one response.
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
"""How long a new connection may stay silent, even where keep-alive is shorter."""

_END_SECONDS: Final = 2.0
_END_BYTES: Final = 64 * 1024
"""How much is read after a connection's last response, so that the response is not cut off (RFC 9112, section 9.6)."""

_NO_MORE_FILES: Final = (errno.EMFILE, errno.ENFILE)
_IPV4_MAPPED: Final = "::ffff:"


class _Connection(TConn):  # type: ignore[misc]
    """A connection that stays in its worker's poller until the client closes it."""

    def __init__(self, worker: "DrainingWorker", *of_tconn: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        super().__init__(worker.cfg, *of_tconn)
        self._worker = worker
        self.bytes_after_end = 0

    def close(self, graceful: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's own signature
        """Close the connection; gracefully: once the client has closed its side."""
        if graceful:
            self._worker.end(self)
        else:
            super().close()


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """Answers every connected client when it is stopped, then refuses new connections at once.

    gunicorn's own worker leaves the kernel's queue unanswered and keeps the socket open until its last request is
    finished. A client that connects during a stop waits for up to graceful_timeout and is cut off without a response. A
    refused connection is better: nothing was sent, so a proxy can retry elsewhere.

    gunicorn's own worker also lets a new, silent connection hold a thread for five seconds, and lets a connection whose
    client does not close its side block the accept loop for two. Here, both wait in that loop's poller.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        super().__init__(*args, **kwargs)
        self._ending: deque[_Connection] = deque()

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's own signature
        """Start or stop accepting. On shutdown, accept what is queued and close the socket."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                while self.accept(listener):
                    pass
                listener.close()

    def accept(self, listener: Any) -> bool:  # noqa: ANN401 - gunicorn has no types
        """Accept a connection and wait for its request. Return whether there was one."""
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
        """Close the longest idle connection. Return whether there was one."""
        # Closing connections have had their response. Of the others, the one with the earliest timeout has waited
        # longest.
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
        """Close our side and keep reading for a while: a reset would discard the last response."""
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
        """Close connections that have been silent or closing for too long."""
        super().murder_pending()
        while self._ending and self._ending[0].timeout <= monotonic():
            self._close(self._ending.popleft())

    def _cap_keepalive(self, deadline: float) -> None:
        """On shutdown, close every idle connection by then, kept-alive or new."""
        super()._cap_keepalive(deadline)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, deadline)

    def handle_request(self, req: Any, conn: Any) -> bool:  # noqa: ANN401 - gunicorn has no types
        """Handle a request. The response says so if the connection closes because the body could not be read."""
        should_close = req.should_close
        req.should_close = lambda: req.body.failed or should_close()
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:  # noqa: ANN401, FBT001 - gunicorn's own signature
        """Return whether the connection may stay open. It may not if the unread rest of the body is malformed.

        gunicorn would send a second response about that, which the client would take for the response to its next
        request.
        """
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except Exception as exc:  # noqa: BLE001 - whatever it is: the request is answered
            self.log.debug("Closing connection: the rest of a body could not be read: %s", type(exc).__name__)
            return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:  # noqa: ANN401 - gunicorn has no types
        """Answer a request that never reaches the application. An unknown transfer coding gets 400, not 501."""
        if isinstance(exc, UnsupportedTransferCoding):
            exc = InvalidHeader("Transfer-Encoding", req=req)
        super().handle_error(req, client, addr, exc)


def _plain(address: Any) -> Any:  # noqa: ANN401 - a socket's own, which may be a text
    """Return the client's address, with an IPv4 client of a dual-stack socket in IPv4 form."""
    if not isinstance(address, tuple) or not address[0].startswith(_IPV4_MAPPED):
        return address
    return address[0].removeprefix(_IPV4_MAPPED), address[1]
