"""Draw the last hour's latency: two lines, with the minutes from left to right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from api.ops.snapshot import PLOT_MINUTES, Minute

WIDTH: Final = 720
HEIGHT: Final = 160


@dataclass(frozen=True, slots=True)
class Plot:
    """What the template draws: each line's points, and the value at the top."""

    p50: str
    p99: str
    top_seconds: float


def draw(minutes: Sequence[Minute]) -> Plot:
    """Return the plot. The top is the largest p99, at least one second."""
    top = max([1.0, *(minute.p99 for minute in minutes)])

    def line(value: Callable[[Minute], float]) -> str:
        return " ".join(f"{_x(minute):.1f},{_y(value(minute), top):.1f}" for minute in minutes)

    return Plot(p50=line(lambda minute: minute.p50), p99=line(lambda minute: minute.p99), top_seconds=top)


def _x(minute: Minute) -> float:
    return WIDTH * (1 - minute.ago / (PLOT_MINUTES - 1))


def _y(seconds: float, top: float) -> float:
    return HEIGHT * (1 - seconds / top)
