"""How the commands show what they found: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPED_COLUMNS: Final = 10_000
"""Nothing is wrapped in what another program reads."""


def print_json(found: object) -> None:
    """Print one JSON document on one line; times are ISO 8601 in UTC."""
    click.echo(json.dumps(found, default=_plain, ensure_ascii=False))


def screen() -> Console:
    """Give standard output: as wide as the terminal, or as it needs to be where there is none."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPED_COLUMNS
    return console


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> Table:
    """Build a table; the columns named in `numbers` are set to the right."""
    built = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        built.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        built.add_row(*(Text(visible(cell)) for cell in row))
    return built


def visible(value: object) -> str:
    """Write a value for a terminal. What a mail server said may hold codes that would steer it: those are spelt out."""
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        case float():
            return f"{value:.3g}" if value < 10 else f"{value:.0f}"  # noqa: PLR2004 - three digits say enough
        case _:
            return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(value))


def duration(seconds: float) -> str:
    """Write a time span as people say it: 0.3 s, 12 s, 4 min, 3 h, 2 d."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{visible(float(seconds / size))} {unit}"
    return f"{visible(seconds / 86_400)} d"


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever json cannot write by itself
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
