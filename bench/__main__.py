"""The command line of the benchmark: `python -m bench`, or `make bench`."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.environment.servers import Servers
from bench.environment.sizes import FULL, QUICK, SMOKE
from bench.errors import BenchError
from bench.groups import GROUPS
from bench.measuring import Experiment, Outcome, carry_out
from bench.profiling.profiles import PROFILES, profile
from bench.report import document as report
from bench.report import plots
from bench.report.machine import machine, occasion
from bench.report.terminal import Terminal
from embedded.errors import EmbeddedError
from embedded.programs.signals import interrupt_on_signals
from embedded.servers.postgres_files import PROGRAMS_VARIABLE
from embedded.stack import ROOT

_SIZES = {"full": FULL, "quick": QUICK, "smoke": SMOKE}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", "size", flag_value="quick", help="Minutes instead of hours: fewer rounds and smaller numbers.")
@click.option("--full", "size", flag_value="full", default="full", help="Everything; takes hours. The default.")
@click.option("--smoke", "size", flag_value="smoke", help="Only try the code. The figures mean nothing.")
@click.option(
    "--only", "names", multiple=True, type=click.Choice(list(GROUPS)), help="Only this part; may be repeated."
)
@click.option(
    "--contender",
    "words",
    multiple=True,
    help="Only contenders whose names contain this, besides ours; may be repeated.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results.json, results.md and the plots go. Default: .bench/ and the time.",
)
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also write each table between its markers in this document.",
)
@click.option(
    "--postgres",
    "postgres_programs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of another PostgreSQL's programs, such as /usr/lib/postgresql/15/bin.",
)
@click.option(
    "--profile", "profiled", type=click.Choice(list(PROFILES)), help="Print a profile instead: where the time goes."
)
def main(
    *,
    size: str,
    names: tuple[str, ...],
    words: tuple[str, ...],
    folder: Path | None,
    document: Path | None,
    postgres_programs: Path | None,
    profiled: str | None,
) -> None:
    """Measure the service beside the usual way, the floor and its peers, on servers of its own.

    Exit code 1 when a goal was missed or a contender failed. Run it on a machine that does nothing else.
    """
    interrupt_on_signals()
    terminal = Terminal()
    if postgres_programs is not None:
        os.environ[PROGRAMS_VARIABLE] = str(postgres_programs)
    folder = folder or ROOT / ".bench" / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}-{size}"
    try:
        with Servers.running() as servers:
            if profiled is not None:
                _profile(profiled, servers, size, document, terminal)
                return
            when, where = occasion(servers, size), machine(servers)
            experiments = [
                experiment.only(words) for name in names or GROUPS for experiment in GROUPS[name](servers, _SIZES[size])
            ]
            if document is not None:
                report.find_places(document, [report.MACHINE, *map(report.part_of, experiments)])
            outcomes = _measure(experiments, when | where, folder, terminal)
        if document is not None:
            _put_into(document, outcomes, when, where)
    except (BenchError, EmbeddedError) as error:
        raise click.ClickException(str(error)) from error
    terminal.say(f"The results are in {folder}")
    sys.exit(1 if any(_is_bad(outcome, size) for outcome in outcomes) else 0)


def _profile(name: str, servers: Servers, size: str, document: Path | None, terminal: Terminal) -> None:
    when = occasion(servers, size)
    tables = list(profile(name, servers, _SIZES[size]))
    for title, shares in tables:
        terminal.shares(title, shares)
    if document is not None:
        parts = [report.line_of(when), *(report.shares_as_markdown(title, shares) for title, shares in tables)]
        report.put_into(document, f"profile of the {name}", "\n".join(parts))


def _measure(
    experiments: Iterable[Experiment], environment: dict[str, str], folder: Path, terminal: Terminal
) -> list[Outcome]:
    """Run the experiments. Results are written after each one, because all of them take long."""
    outcomes: list[Outcome] = []
    with terminal.shown():
        for experiment in experiments:
            outcomes.append(carry_out(experiment, terminal))
            report.write(folder, outcomes, environment)
    report.write(folder, outcomes, environment, plots.draw(folder, outcomes))
    if not plots.can_draw():
        terminal.say("No plots: matplotlib is not installed, `make bench` installs it")
    return outcomes


def _put_into(document: Path, outcomes: Sequence[Outcome], when: Mapping[str, str], where: Mapping[str, str]) -> None:
    """Write each table into its place in the document, and the plots into the folder of its name beside it."""
    files = plots.draw(document.with_suffix(""), outcomes)
    report.put_into(document, report.MACHINE, report.line_of(where))
    for outcome in outcomes:
        name = files.get(outcome.experiment.key)
        table = report.figures(outcome, None if name is None else f"{document.stem}/{name}")
        title = f"#### {outcome.experiment.title}"
        report.put_into(document, report.part_of(outcome.experiment), f"{title}\n\n{report.line_of(when)}\n{table}")


def _is_bad(outcome: Outcome, size: str) -> bool:
    """Return whether a contender failed or a goal was missed. The goals do not apply to a smoke run."""
    missed = [goal for goal in outcome.experiment.goals if outcome.reached(goal)[1] is False]
    return bool(outcome.failures) or (bool(missed) and size != "smoke")


if __name__ == "__main__":
    main(prog_name="python -m bench")
