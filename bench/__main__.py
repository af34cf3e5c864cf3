"""The command line: `python -m bench`, or `make bench`."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import plots, report
from bench.errors import BenchError
from bench.groups import GROUPS
from bench.machine import describe
from bench.measuring import Outcome, carry_out
from bench.servers import Servers
from bench.sizes import FULL, QUICK, SMOKE, Sizes
from bench.terminal import Terminal
from embedded.errors import EmbeddedError
from embedded.signals import interrupt_on_signals
from embedded.stack import ROOT

_SIZES = {"full": FULL, "quick": QUICK, "smoke": SMOKE}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", "size", flag_value="quick", help="A look in minutes: fewer rounds and smaller numbers.")
@click.option("--full", "size", flag_value="full", default="full", help="All of it: takes hours. The default.")
@click.option("--smoke", "size", flag_value="smoke", help="Only try the code: the figures mean nothing.")
@click.option("--only", "names", multiple=True, type=click.Choice(list(GROUPS)), help="This part; may be repeated.")
@click.option("--contender", "words", multiple=True, help="Those whose names hold this, beside ours; may be repeated.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results.json, results.md and the plots go. Default: .bench/ and the time.",
)
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also put the tables between the markers of this document.",
)
def main(size: str, names: tuple[str, ...], words: tuple[str, ...], folder: Path | None, document: Path | None) -> None:
    """Measure the service beside the usual way, the floor and its peers, on servers of its own.

    Exit code 1 when a goal was missed. Run it on a machine that does nothing else.
    """
    interrupt_on_signals()
    folder = folder or ROOT / ".bench" / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}-{size}"
    try:
        outcomes = _measure(_SIZES[size], names or tuple(GROUPS), words, folder, document)
    except (BenchError, EmbeddedError) as error:
        raise click.ClickException(str(error)) from error
    missed = [goal for outcome in outcomes for goal in outcome.experiment.goals if outcome.reached(goal)[1] is False]
    sys.exit(1 if missed and size != "smoke" else 0)


def _measure(
    sizes: Sizes, names: tuple[str, ...], words: tuple[str, ...], folder: Path, document: Path | None
) -> list[Outcome]:
    """Carry the parts out. What is finished is written after each part: the whole takes long."""
    terminal = Terminal()
    outcomes: list[Outcome] = []
    with Servers.running() as servers, terminal.shown():
        environment = describe(servers)
        for name in names:
            for experiment in GROUPS[name](servers, sizes):
                outcomes.append(carry_out(experiment.only(words), terminal))
                report.write(folder, outcomes, environment)
    if plots.can_draw():
        plots.draw(folder, outcomes)
    else:
        terminal.say("No plots: matplotlib is not installed, `make bench` installs it")
    if document is not None:
        report.put_into(document, report.markdown(outcomes, environment))
    terminal.say(f"The results are in {folder}")
    return outcomes


if __name__ == "__main__":
    main(prog_name="python -m bench")
