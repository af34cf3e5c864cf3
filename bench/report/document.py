"""The results as JSON for programs and as Markdown for people."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from bench.errors import MarkersMissingError
from bench.measuring import Experiment, Goal, Outcome
from bench.report.figures import readable, spread, times

JSON_FILE: Final = "results.json"
MARKDOWN_FILE: Final = "results.md"
NONE: Final[Mapping[str, str]] = MappingProxyType({})
MACHINE: Final = "machine"
"""The part of a document that names the machine and the versions."""


def rows_of(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    """Return an experiment's table: its head, then a row for each contender, also for those that could not run."""
    experiment = outcome.experiment
    first = experiment.columns[0]
    yield ("", *experiment.columns, f"spread of {first}", f"{experiment.reference} : this")
    for contender in experiment.contenders:
        if not contender.is_installed:
            yield (contender.name, f"not installed: {contender.package}", *[""] * (len(experiment.columns) + 1))
            continue
        if contender.name in outcome.failures:
            yield (contender.name, "failed", *[""] * (len(experiment.columns) + 1))
            continue
        medians = [readable(outcome.median(contender.name, column)) for column in experiment.columns]
        ratio = outcome.ratio(experiment.reference, contender.name, first)
        own = contender.name == experiment.reference
        yield (contender.name, *medians, spread(outcome.values(contender.name, first)), "" if own else times(ratio))


def goals_of(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """Return each goal: what is asked, what was measured, and whether that is enough."""
    for goal in outcome.experiment.goals:
        value, reached = outcome.reached(goal)
        answer = {True: "yes", False: "NO", None: "not measured"}[reached]
        yield _asked(goal), times(value) if goal.against else readable(value), answer


def write(
    folder: Path, outcomes: Sequence[Outcome], environment: dict[str, str], pictures: Mapping[str, str] = NONE
) -> None:
    """Write the results as JSON and as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"environment": environment, "experiments": [_as_data(outcome) for outcome in outcomes]}
    (folder / JSON_FILE).write_text(json.dumps(data, indent=1) + "\n")
    (folder / MARKDOWN_FILE).write_text(markdown(outcomes, environment, pictures))


def markdown(outcomes: Sequence[Outcome], environment: dict[str, str], pictures: Mapping[str, str] = NONE) -> str:
    """Return all tables as Markdown, each with its picture, whose path is in `pictures`."""
    titled = [
        f"### {outcome.experiment.title}\n\n{figures(outcome, pictures.get(outcome.experiment.key))}"
        for outcome in outcomes
    ]
    return "\n".join([line_of(environment), *titled])


def figures(outcome: Outcome, picture: str | None = None) -> str:
    """Return an experiment's table, its goals and its picture, all without a title."""
    head, *rows = rows_of(outcome)
    parts = [_table(head, rows)]
    if goals := list(goals_of(outcome)):
        parts.append(_table(("goal", "measured", "reached"), goals))
    if picture is not None:
        parts.append(f"![{outcome.experiment.title}]({picture})\n")
    return "\n".join(parts)


def line_of(facts: Mapping[str, str]) -> str:
    """Return facts as one line."""
    return "; ".join(f"{name} {value}" for name, value in facts.items()) + ".\n"


def part_of(experiment: Experiment) -> str:
    """Return the name of the part of a document with an experiment's figures."""
    return f"figures of {experiment.key}"


def shares_as_markdown(title: str, shares: Sequence[tuple[str, float]]) -> str:
    """Return one table of a profile."""
    return _table(("share", title), [(f"{share:.1%}", f"`{name}`") for name, share in shares])


def markers(part: str) -> tuple[str, str]:
    """Return the lines between which a part of a document is written."""
    return f"<!-- {part}: written by python -m bench, do not edit -->", f"<!-- end of {part} -->"


def put_into(document: Path, part: str, text: str) -> None:
    """Replace the text between the markers of a document's part. Raises MarkersMissingError."""
    first, last = markers(part)
    before, after = _around(document, part)
    document.write_text(f"{before}{first}\n\n{text}\n{last}{after}")


def find_places(document: Path, parts: Iterable[str]) -> None:
    """Check, before hours of measuring, that a document has markers for each part. Raises MarkersMissingError."""
    for part in parts:
        _around(document, part)


def _around(document: Path, part: str) -> tuple[str, str]:
    """Return the text before and after a part."""
    first, last = markers(part)
    before, begin, rest = document.read_text().partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise MarkersMissingError(document, part)
    return before, after


def _asked(goal: Goal) -> str:
    what = f"{goal.contender}: {goal.column}" if goal.against is None else f"{goal.contender} : {goal.against}"
    if goal.against is not None:
        what += f" ({goal.column})"
    unit = "x" if goal.against else ""
    bounds = [f"at least {goal.at_least:g}{unit}"] if goal.at_least is not None else []
    bounds += [f"at most {goal.at_most:g}{unit}"] if goal.at_most is not None else []
    return f"{what} {' and '.join(bounds)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _as_data(outcome: Outcome) -> dict[str, Any]:
    experiment = outcome.experiment
    return {
        "key": experiment.key,
        "title": experiment.title,
        "columns": experiment.columns,
        "contenders": [
            {
                "name": contender.name,
                "missing": None if contender.is_installed else contender.package,
                "failure": outcome.failures.get(contender.name),
                "median": {column: outcome.median(contender.name, column) for column in experiment.columns},
                "ratio": outcome.ratio(experiment.reference, contender.name, experiment.columns[0]),
                "runs": [measured.values for measured in outcome.rounds.get(contender.name, [])],
            }
            for contender in experiment.contenders
        ],
        "goals": [
            {**asdict(goal), "value": value, "reached": reached}
            for goal in experiment.goals
            for value, reached in [outcome.reached(goal)]
        ],
    }
