"""The API's worker process: gunicorn's own, with a stop that cuts nobody off."""

from typing import Any

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
