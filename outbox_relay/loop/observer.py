"""The interface through which a relay reports its passes; the metrics implement it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from outbox_relay.loop.reaper import SweepResult
from shared.outbox.reaping import Reaped


class Observer:
    """An observer that ignores everything. Its methods are called once per pass, never once per message."""

    def pass_begins(self) -> None:
        """A pass begins, also during an outage."""

    def step(self, name: str) -> AbstractContextManager[object]:  # noqa: ARG002 - for subclasses
        """Return a context in which one step of a pass (reap, publish, prune or expire) is done."""
        return nullcontext()

    def claims_reaped(self, claims: Sequence[Reaped]) -> None:
        """Claims whose lease was over were reaped."""

    def sweep_ended(self, sweep: SweepResult) -> None:
        """The published rows whose lease was over were compared with Redis."""

    def pass_ends(self, published: int, pruned: int) -> None:
        """A pass ended without an error; so many messages were published and so many finished ones deleted."""

    def accounts_expired(self, accounts: int) -> None:
        """So many accounts were deleted that were not verified in time."""

    def outage(self, of: str) -> None:
        """A server (redis or postgresql) is unavailable; called once per outage."""

    def recovery(self) -> None:
        """All servers are available again."""
