"""What a relay tells about its work, to whoever wants to know."""

from contextlib import AbstractContextManager, nullcontext

from outbox_relay.reaper import Round


class Observer:
    """Listens to everything and remembers nothing. Called once a pass, never once a message."""

    def pass_begins(self) -> None:
        """A pass of the loop begins; outages are passes too."""

    def step(self, name: str) -> AbstractContextManager[object]:  # noqa: ARG002 - for those who listen
        """One step of a pass (reap, publish or prune) is made inside this context."""
        return nullcontext()

    def pass_ends(self, published: int, reaped: Round, pruned: int) -> None:
        """A pass was made without a failure: what it did."""

    def outage(self, of: str) -> None:
        """A server (redis or postgresql) is away; told once each time."""

    def recovery(self) -> None:
        """Everything answers again."""
