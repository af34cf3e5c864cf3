"""The command line: `python -m tests.chaos`."""

import secrets
import sys
from pathlib import Path
from typing import Final

import click

from embedded.programs.signals import interrupt_on_signals
from tests.chaos.commands import WORKER_CLASSES
from tests.chaos.plan import KINDS, choose_kinds
from tests.chaos.report import table, write_json
from tests.chaos.run import Options, run

EXIT_WRONG: Final = 1
_COMPONENTS: Final = ",".join(dict.fromkeys(kind.component for kind in KINDS.values()))


def _read_kinds(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    try:
        return choose_kinds(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


@click.command(context_settings={"show_default": True})
@click.option("--seed", type=click.IntRange(0, 2**31), help="Draws the faults and the load. Default: a random one.")
@click.option(
    "--duration", type=click.FloatRange(1, 86_400), default=60.0, help="Seconds of signups and faults; quiet follows."
)
@click.option("--rate", type=click.FloatRange(0.1, 1000), default=10.0, help="New signups in a second.")
@click.option(
    "--faults",
    "kinds",
    default=_COMPONENTS,
    callback=_read_kinds,
    help=f"What may happen, with commas: a component (all of its faults), none, or single ones: {', '.join(KINDS)}.",
)
@click.option(
    "--worker", "worker_class", type=click.Choice(WORKER_CLASSES), default="own", help="Class of the workers."
)
@click.option("--workers", type=click.IntRange(1, 20), default=2, help="Processes of `rq worker`.")
@click.option("--relays", type=click.IntRange(1, 20), default=2, help="Processes of `python -m outbox_relay`.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the run makes its own folder, removed if nothing is wrong. Default: where temporary files lie.",
)
@click.option("--keep", is_flag=True, help="Leave logs, mails and evidence there even if nothing is wrong.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there too."
)
def main(  # noqa: PLR0913, PLR0917 - one argument for each option
    seed: int | None,
    duration: float,
    rate: float,
    kinds: tuple[str, ...],
    worker_class: str,
    workers: int,
    relays: int,
    folder: Path | None,
    json_file: Path | None,
    *,
    keep: bool,
) -> None:
    """Sign users up while everything fails, then show that nothing is lost.

    Starts PostgreSQL, Redis, a mail server, the API, relays and workers of its own on 127.0.0.1, kills, stops and
    empties them as the seed says, waits for quiet, and prints one table. Exit 1 if anything is lost, a mail belongs to
    nobody, a copy or a spent attempt has no cause, or it does not become quiet.
    """
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"seed: {seed}")
    interrupt_on_signals()
    options = Options(seed, duration, rate, kinds, worker_class, workers, relays, folder, keep)
    outcome = run(options, click.echo)
    click.echo("\n" + table(options, outcome.account))
    if json_file is not None:
        write_json(json_file, options, outcome.account)
    if outcome.folder is not None:
        click.echo(f"logs, mails and evidence: {outcome.folder}")
    if outcome.account.wrong:
        sys.exit(EXIT_WRONG)


if __name__ == "__main__":
    main()
