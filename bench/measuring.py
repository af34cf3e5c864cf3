"""Run experiments: contenders take turns; medians, spreads and ratios are computed."""

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Literal, Protocol

from bench.errors import ContenderFailedError


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one contender: a value for each column, and single samples where a distribution is of interest."""

    values: dict[str, float]
    samples: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that is measured.

    Attributes:
        name: its name in the table.
        measure: runs it once, with its preparation, which is not timed.
        package: the peer that has to be installed for it.
        at: its position on the plot's horizontal axis.
        find: returns None or False where the package is not installed.

    """

    name: str
    measure: Callable[[], Measurement]
    package: str | None = None
    at: float | None = None
    find: Callable[[str], object] = find_spec

    @property
    def is_installed(self) -> bool:
        """Whether it can run here."""
        return self.package is None or bool(self.find(self.package))


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal of the service: a ratio between two contenders of one experiment, or a bound for a value.

    Attributes:
        contender: the contender whose value counts.
        column: the column of the value.
        against: the contender that it is divided by; without it the value itself counts.
        at_least: the lower bound.
        at_most: the upper bound.

    """

    contender: str
    column: str
    against: str | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """How an experiment is drawn.

    Attributes:
        kind: "distribution" of the samples, or "line": the medians over each contender's `at`.
        x_label: what the horizontal axis shows.
        y_label: the same for the vertical one; for a line the name of the column.

    """

    kind: Literal["distribution", "line"]
    x_label: str
    y_label: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """Contenders that do the same work, side by side.

    Attributes:
        key: its name in files.
        title: what is compared, for the table's head.
        columns: what each run yields, with units; ratios are those of the first.
        reference: the contender whose first column is divided by the others'.
        contenders: in the order of the table.
        goals: the goals of the figures.
        repeats: how many rounds.
        plot: how to draw it.

    """

    key: str
    title: str
    columns: tuple[str, ...]
    reference: str
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...] = ()
    repeats: int = 1
    plot: Plot | None = None

    def only(self, words: Sequence[str]) -> "Experiment":
        """Return the same with only those contenders whose names contain one of the words; the reference stays."""
        if not words:
            return self
        chosen = [
            contender
            for contender in self.contenders
            if contender.name == self.reference or any(word in contender.name for word in words)
        ]
        return replace(self, contenders=tuple(chosen))


@dataclass(slots=True)
class Outcome:
    """The outcome of an experiment.

    Attributes:
        experiment: the experiment.
        rounds: by contender, the results of its rounds; none if its package is not installed.
        failures: by contender, why it stopped.

    """

    experiment: Experiment
    rounds: dict[str, list[Measurement]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def values(self, contender: str, column: str) -> list[float]:
        """Return the values of all rounds."""
        return [measured.values[column] for measured in self.rounds.get(contender, []) if column in measured.values]

    def median(self, contender: str, column: str) -> float | None:
        """Return the median, or None if nothing was measured."""
        values = self.values(contender, column)
        return statistics.median(values) if values else None

    def ratio(self, contender: str, against: str, column: str) -> float | None:
        """Return the median of the rounds' ratios: both ran within the same minute."""
        pairs = zip(self.values(contender, column), self.values(against, column), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return statistics.median(ratios) if ratios else None

    def reached(self, goal: Goal) -> tuple[float | None, bool | None]:
        """Return the goal's value and whether it is reached; None and None if it was not measured."""
        if goal.against is None:
            value = self.median(goal.contender, goal.column)
        else:
            value = self.ratio(goal.contender, goal.against, goal.column)
        if value is None:
            return None, None
        above = goal.at_least is None or value >= goal.at_least
        return value, above and (goal.at_most is None or value <= goal.at_most)


class Progress(Protocol):
    """The interface through which a run reports its progress."""

    def begin(self, experiment: Experiment, runs: int) -> None:
        """Report that an experiment with this many runs begins."""

    def run(self, contender: str, number: int) -> None:
        """Report that a contender begins its run of this number, counted from 1."""

    def step(self, values: dict[str, float]) -> None:
        """Report the result of the run."""

    def failed(self, reason: str) -> None:
        """Report that a contender failed; the others continue without it."""

    def end(self, outcome: Outcome) -> None:
        """Report the outcome of the experiment."""


def carry_out(experiment: Experiment, progress: Progress) -> Outcome:
    """Run all contenders in turns; in each round in another order, so that none always follows the same one."""
    present = [contender for contender in experiment.contenders if contender.is_installed]
    outcome = Outcome(experiment, {contender.name: [] for contender in present})
    progress.begin(experiment, len(present) * experiment.repeats)
    for number in range(1, experiment.repeats + 1):
        for contender in _in_turns(present, number):
            if contender.name in outcome.failures:
                continue
            progress.run(contender.name, number)
            try:
                measured = contender.measure()
            except ContenderFailedError as error:
                outcome.failures[contender.name] = str(error)
                progress.failed(str(error))
            else:
                outcome.rounds[contender.name].append(measured)
                progress.step(measured.values)
    progress.end(outcome)
    return outcome


def _in_turns(contenders: Sequence[Contender], number: int) -> list[Contender]:
    if number == 1:
        return list(contenders)
    return random.Random(number).sample(contenders, len(contenders))  # noqa: S311 - an order, no secret
