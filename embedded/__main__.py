"""The command line: `python -m embedded up` and `python -m embedded demo`."""

import sys
from pathlib import Path

import click

from embedded.demo import run_demo
from embedded.errors import EmbeddedError
from embedded.stack import ROOT
from embedded.up import run_up


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run the whole service on this machine, with servers of its own on 127.0.0.1."""


@main.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / ".outbox",
    show_default=".outbox in the project",
    help="Where the data is kept.",
)
def up(folder: Path) -> None:
    """Run it until Ctrl-C. A process that ends is restarted; the data survives a restart."""
    try:
        run_up(folder.absolute())
    except EmbeddedError as error:
        raise click.ClickException(str(error)) from error


@main.command()
def demo() -> None:
    """Sign a user up while Redis is down, start Redis, and follow the mails. Leaves nothing behind."""
    sys.exit(run_demo())


if __name__ == "__main__":
    main(prog_name="python -m embedded")
