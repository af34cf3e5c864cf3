"""The option and the arguments that several commands have."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from shared.outbox.columns import LARGEST_ID
from shared.outbox.operations.failure_groups import group_key


class _GroupId(click.ParamType[int]):
    """The id of a group of dead letters, read as the hash that it stands for."""

    name = "id"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the hash, or fail with what an id looks like."""
        key = value if isinstance(value, int) else group_key(value)
        if key is None:
            self.fail(f"{value!r} is no group: `dead --groups` lists them, with ids of 16 characters", param, ctx)
        return key


MESSAGE_ID: Final = click.IntRange(1, LARGEST_ID)

GROUP_ID: Final = _GroupId()

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Add the option --json to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)
