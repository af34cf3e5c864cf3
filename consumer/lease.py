"""The time that a claim gives us, by our own clock."""

from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True)
class Lease:
    """Started before the claim's statement, so that it ends before the lease that PostgreSQL counts."""

    started_at: float
    seconds: float

    @classmethod
    def start(cls, seconds: float) -> "Lease":
        """Begin to count now."""
        return cls(monotonic(), seconds)

    @property
    def send_until(self) -> float:
        """Give the moment (monotonic) by which a send has to have its final answer: two thirds of the lease."""
        return self.started_at + self.seconds * 2 / 3

    @property
    def begin_until(self) -> float:
        """Give the moment (monotonic) after which a send is not begun: half of its time went by with waiting."""
        return self.started_at + self.seconds / 3

    def is_over(self) -> bool:
        """Tell whether somebody else may hold the message by now."""
        return monotonic() >= self.started_at + self.seconds
