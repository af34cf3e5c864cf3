"""The API's worker process: gunicorn's own, with a stop that cuts nobody off, and one answer for each request."""

from typing import Any

from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding
from gunicorn.workers.gthread import ThreadWorker


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """Answers everybody who is connected when it is stopped, and then refuses connections at once.

    gunicorn's worker leaves what waits in the kernel's queue, and keeps the socket open until its last request is
    answered. So a client that connects during a stop waits for up to graceful_timeout, and is cut off without an
    answer. A refused connection is what a proxy can repeat elsewhere: nothing was sent.
    """

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's own signature
        """Take or leave new connections; in a stop take those that wait, and close the socket."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                self._drain(listener)
                listener.close()

    def _drain(self, listener: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Accept until nobody waits: accept() counts who came in, and is silent where nobody did."""
        before = None
        while before != self.nr_conns:
            before = self.nr_conns
            self.accept(listener)

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
