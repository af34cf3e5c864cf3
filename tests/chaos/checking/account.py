"""The result of a run's checks."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Account:
    """The figures of a run, and the story behind each that should be zero.

    Attributes:
        figures: what the table shows, in its order.
        wrong: what breaks the promise, a line each. A run with any of these has failed.
        remarks: what is allowed and yet worth checking.

    """

    figures: dict[str, object] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
