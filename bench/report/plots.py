"""Draw the plots with matplotlib, which is optional."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.measuring import Outcome, Plot

_SIZE_INCHES = (7.0, 4.0)
_STEPS = 500


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(folder: Path, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Draw the plots into the folder, and return the files' names by experiment. Without matplotlib draw none."""
    if not can_draw():
        return {}
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for outcome in outcomes:
        plot = outcome.experiment.plot
        if plot is None or not any(outcome.rounds.values()):
            continue
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.set_title(outcome.experiment.title, fontsize="medium")
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        axes.grid(visible=True, alpha=0.3)
        if plot.kind == "distribution":
            _draw_distribution(axes, outcome)
        else:
            _draw_line(axes, outcome, plot)
        name = files[outcome.experiment.key] = f"{outcome.experiment.key}.svg"
        figure.savefig(folder / name, metadata={"Date": None})
    return files


def _draw_distribution(axes: Any, outcome: Outcome) -> None:  # noqa: ANN401 - matplotlib is optional
    """Draw, for each contender, which share of all samples lies below a value."""
    for name, rounds in outcome.rounds.items():
        samples = sorted(sample for measured in rounds for sample in measured.samples)
        # A hundred thousand points would make a file of megabytes that shows the same line.
        ranks = sorted({round(step * (len(samples) - 1) / _STEPS) for step in range(_STEPS + 1)} if samples else ())
        axes.plot([samples[rank] for rank in ranks], [(rank + 1) / len(samples) for rank in ranks], label=name)
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.legend(fontsize="small")


def _draw_line(axes: Any, outcome: Outcome, plot: Plot) -> None:  # noqa: ANN401 - the same
    """Draw the medians over what grows, with bars from the lowest to the highest round."""
    points = []
    for contender in outcome.experiment.contenders:
        values = outcome.values(contender.name, plot.y_label)
        if contender.at is not None and values:
            points.append((contender.at, outcome.median(contender.name, plot.y_label) or 0.0, values))
    below = [median - min(values) for _, median, values in points]
    above = [max(values) - median for _, median, values in points]
    axes.errorbar(
        [at for at, _, _ in points], [median for _, median, _ in points], yerr=[below, above], marker="o", capsize=4
    )
    axes.set_xscale("symlog")
    axes.set_ylim(bottom=0)
