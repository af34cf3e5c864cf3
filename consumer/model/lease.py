"""The time that a claim gives us, by our own clock."""

from dataclasses import dataclass, replace
from time import monotonic


@dataclass(frozen=True, slots=True)
class Lease:
    """Started before the claim's statement, so that it ends before the lease that PostgreSQL counts.

    Attributes:
        started_at: when (monotonic) the message was claimed.
        seconds: how long a lease is.
        renewed_at: when (monotonic) the latest renewal began; the lease is counted from there.

    """

    started_at: float
    seconds: float
    renewed_at: float | None = None

    @classmethod
    def start(cls, seconds: float) -> "Lease":
        """Begin to count now."""
        return cls(monotonic(), seconds)

    def renewed(self, at: float) -> "Lease":
        """Return the lease that PostgreSQL gave the same claim in a statement that was begun at this moment."""
        return replace(self, renewed_at=at)

    @property
    def _counted_from(self) -> float:
        return self.started_at if self.renewed_at is None else self.renewed_at

    @property
    def send_until(self) -> float:
        """Give the moment (monotonic) by which a send has to have its final answer: two thirds of the lease."""
        return self._counted_from + self.seconds * 2 / 3

    @property
    def begin_until(self) -> float:
        """Give the moment (monotonic) after which a send is not begun: half of its time went by with waiting."""
        return self._counted_from + self.seconds / 3

    def is_over(self) -> bool:
        """Tell whether somebody else may hold the message by now."""
        return monotonic() >= self._counted_from + self.seconds
