"""What the bench makes of its measurements."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ContenderFailedError, MarkersMissingError
from bench.measuring import Contender, Experiment, Goal, Measurement, Outcome, carry_out
from bench.profiling.profiles import PROFILES
from bench.report import document as report
from embedded.stack import ROOT


class Silent:
    """Reports nothing; records who ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def begin(self, experiment: Experiment, runs: int) -> None:
        pass

    def run(self, contender: str, number: int) -> None:
        self.ran.append(f"{contender}{number}")

    def step(self, values: dict[str, float]) -> None:
        pass

    def failed(self, reason: str) -> None:
        pass

    def end(self, outcome: Outcome) -> None:
        pass


def _experiment(**overrides: object) -> Experiment:
    figures = {"a": iter([10.0, 100.0, 20.0]), "b": iter([5.0, 25.0, 20.0])}

    def contender(name: str) -> Contender:
        return Contender(name, lambda: Measurement({"rows/s": next(figures[name])}))

    missing = Contender("peer", lambda: Measurement({}), package="a_peer_that_nobody_has")
    given: dict[str, Any] = {
        "key": "k",
        "title": "T",
        "columns": ("rows/s",),
        "reference": "a",
        "contenders": (contender("a"), contender("b"), missing),
        "goals": (
            Goal("a", "rows/s", "b", at_least=2),
            Goal("a", "rows/s", "b", at_least=2.1),
            Goal("a", "rows/s", "peer", at_least=1),
            Goal("a", "rows/s", at_most=20),
        ),
        "repeats": 3,
    }
    return Experiment(**{**given, **overrides})


def test_contenders_take_turns() -> None:
    progress = Silent()

    carry_out(_experiment(), progress)

    rounds = [{run[0] for run in progress.ran if run.endswith(str(number))} for number in (1, 2, 3)]
    assert rounds == [{"a", "b"}] * 3
    assert [run[-1] for run in progress.ran] == ["1", "1", "2", "2", "3", "3"]


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_sums() -> None:
    outcome = carry_out(_experiment(), Silent())

    assert outcome.ratio("a", "b", "rows/s") == 2.0
    assert [outcome.reached(goal)[1] for goal in outcome.experiment.goals] == [True, False, None, True]


def test_a_contender_that_fails_does_not_end_the_others() -> None:
    def fail() -> Measurement:
        raise ContenderFailedError("it ended")

    healthy = Contender("b", lambda: Measurement({"rows/s": 1.0}))
    outcome = carry_out(_experiment(contenders=(Contender("a", fail), healthy)), Silent())

    assert outcome.failures == {"a": "it ended"}
    assert outcome.values("b", "rows/s") == [1.0] * 3
    assert [row[:2] for row in report.rows_of(outcome)] == [("", "rows/s"), ("a", "failed"), ("b", "1")]


def test_a_peer_that_is_not_installed_is_shown_as_such(tmp_path: Path) -> None:
    outcome = carry_out(_experiment(), Silent())

    report.write(tmp_path, [outcome], {"cores": "2"})

    assert "| peer | not installed: a_peer_that_nobody_has |" in (tmp_path / report.MARKDOWN_FILE).read_text()
    contenders = json.loads((tmp_path / report.JSON_FILE).read_text())["experiments"][0]["contenders"]
    assert contenders[2]["missing"] == "a_peer_that_nobody_has"
    assert contenders[0]["median"] == {"rows/s": 20.0}


def test_a_peer_of_another_language_is_looked_for_in_its_own_way() -> None:
    contender = Contender("peer", lambda: Measurement({}), package="json", find=lambda _name: False)

    assert not contender.is_installed


def test_a_part_replaces_what_stands_between_the_markers_of_a_document(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    begin, end = report.markers(report.MACHINE)
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")

    report.put_into(document, report.MACHINE, "new")

    assert document.read_text() == f"before\n{begin}\n\nnew\n{end}\nafter\n"


def test_a_document_without_markers_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("no place for figures\n")

    with pytest.raises(MarkersMissingError):
        report.find_places(document, [report.MACHINE])
    with pytest.raises(MarkersMissingError):
        report.put_into(document, report.MACHINE, "new")

    assert document.read_text() == "no place for figures\n"


def test_the_performance_document_has_a_place_for_each_part() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()

    parts = [report.MACHINE, *(f"profile of the {name}" for name in PROFILES)]
    assert [text.count(marker) for part in parts for marker in report.markers(part)] == [1] * 6
