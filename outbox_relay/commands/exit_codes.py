"""The exit codes of the commands, and how a command fails."""

import sys
from typing import Final, NoReturn

import click

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2


def fail(message: str) -> NoReturn:
    """Print the reason why nothing was done, and exit with EXIT_FAILED."""
    click.echo(message, err=True)
    sys.exit(EXIT_FAILED)
