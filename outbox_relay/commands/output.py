"""The output of the commands: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPED_COLUMNS: Final = 10_000
"""Lines that another program reads are never wrapped."""


def print_json(found: object) -> None:
    """Print one JSON document on one line; times are ISO 8601 in UTC."""
    click.echo(json.dumps(found, default=_plain, ensure_ascii=False))


def stdout_console() -> Console:
    """Return a console on standard output that wraps lines only on a terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPED_COLUMNS
    return console


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> Table:
    """Return a table; the columns named in `numbers` are aligned right."""
    built = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        built.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        built.add_row(*(Text(visible(cell)) for cell in row))
    return built


def visible(value: object) -> str:
    """Return a value as text for a terminal.

    Control characters are escaped: a mail server's answer may contain codes that a terminal obeys.
    """
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
    """Return a time span as text, such as 0.3 s, 12 s, 4 min, 3 h or 2 d."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{visible(float(seconds / size))} {unit}"
    return f"{visible(seconds / 86_400)} d"


def age(moment: datetime | None) -> str:
    """Return how long ago a time was, as text; nothing for a time that is not known."""
    return "" if moment is None else duration(max(0.0, (datetime.now(UTC) - moment).total_seconds()))


@contextmanager
def progress(number: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error while it is open, if that is a terminal.

    Yields:
        What to call with the number of a step that was done, out of `number` in all.

    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=number, file=sys.stderr, show_pos=True) as bar:
        yield bar.update


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever json cannot write by itself
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
