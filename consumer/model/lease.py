"""The lease of a claim, measured by this process's own clock."""

from dataclasses import dataclass, replace
from time import monotonic


@dataclass(frozen=True, slots=True)
class Lease:
    """The time for which a claimed message is ours.

    It starts before the claim's statement, so it ends before the lease that PostgreSQL counts.

    Attributes:
        started_at: when (monotonic) the message was claimed.
        seconds: how long a lease is.
        renewed_at: when (monotonic) the latest renewal started. The lease is counted from there.

    """

    started_at: float
    seconds: float
    renewed_at: float | None = None

    @classmethod
    def start(cls, seconds: float) -> "Lease":
        """Return a lease that starts now."""
        return cls(monotonic(), seconds)

    def renewed(self, at: float) -> "Lease":
        """Return this lease as renewed by a statement that started at `at` (monotonic)."""
        return replace(self, renewed_at=at)

    @property
    def _counted_from(self) -> float:
        return self.started_at if self.renewed_at is None else self.renewed_at

    @property
    def send_until(self) -> float:
        """The moment (monotonic) by which a send must have its final answer: two thirds of the lease."""
        return self._counted_from + self.seconds * 2 / 3

    @property
    def begin_until(self) -> float:
        """The moment (monotonic) after which no send starts: half of the time to send is gone."""
        return self._counted_from + self.seconds / 3

    def is_over(self) -> bool:
        """Return whether another process may have taken the message over by now."""
        return monotonic() >= self._counted_from + self.seconds
