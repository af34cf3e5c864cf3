"""What a relay tells about its work, to whoever wants to know."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from outbox_relay.loop.reaper import Round
from shared.outbox.publishing import Reaped


class Observer:
    """Listens to everything and remembers nothing. Called once a pass, never once a message."""

    def pass_begins(self) -> None:
        """A pass of the loop begins; outages are passes too."""

    def step(self, name: str) -> AbstractContextManager[object]:  # noqa: ARG002 - for those who listen
        """One step of a pass (reap, publish, prune or expire) is made inside this context."""
        return nullcontext()

    def claims_reaped(self, claims: Sequence[Reaped]) -> None:
        """The claims of dead workers were taken back."""

    def round_ends(self, round_: Round) -> None:
        """Forgotten messages were looked for, and what was missing was mended."""

    def pass_ends(self, published: int, pruned: int) -> None:
        """A pass was made without a failure: what it did besides."""

    def accounts_expired(self, accounts: int) -> None:
        """Accounts were deleted that had not been verified in time."""

    def outage(self, of: str) -> None:
        """A server (redis or postgresql) is away; told once each time."""

    def recovery(self) -> None:
        """Everything answers again."""
