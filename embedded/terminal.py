"""Output for people: colours on a terminal, plain lines otherwise."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text


class Terminal:
    """Prints to standard output. Nothing is cut or wrapped, so that URLs can be copied."""

    def __init__(self) -> None:
        """Detect whether the output is a terminal."""
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._started = time.monotonic()
        ascii_only = self._console.options.ascii_only
        self._done, self._failed = ("ok", "!!") if ascii_only else ("✓", "✗")

    @property
    def seconds(self) -> float:
        """The time since the beginning."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text))

    def title(self, text: str) -> None:
        """Print a heading."""
        self._console.print(Text(text, style="bold"))

    def table(self, rows: Mapping[str, str]) -> None:
        """Print names and values."""
        width = max(len(name) for name in rows)
        for name, value in rows.items():
            self._console.print(Text.assemble("  ", (name.ljust(width), "bold"), "  ", (value, "cyan")))

    def step(self, text: str, *details: str) -> None:
        """Print a step that succeeded, with the time since the beginning and its details."""
        self._line(self._done, "bold green", text)
        for detail in details:
            self._console.print(Text.assemble(" " * 12, (detail, "dim")))

    def failed(self, text: str) -> None:
        """Print what failed."""
        self._line(self._failed, "bold red", text)

    def _line(self, mark: str, style: str, text: str) -> None:
        self._console.print(Text.assemble((f"{self.seconds:6.2f} s", "dim"), "  ", (mark, style), " ", text))
