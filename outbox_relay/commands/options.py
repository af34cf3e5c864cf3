"""The option and the argument that several commands have."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from shared.outbox.columns import LARGEST_ID

MESSAGE_ID: Final = click.IntRange(1, LARGEST_ID)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Add the option --json to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)
