"""Show the progress on the terminal, and a table after each part."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.measuring import Experiment, Outcome
from bench.report import document
from bench.report.figures import readable

_MARKS = {"yes": "✓", "NO": "✗", "not measured": "?"}
_WIDTH = 140


class Terminal:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        """Detect whether the output is a terminal."""
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = _WIDTH
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("")
        self._title = ""

    @contextmanager
    def shown(self) -> Iterator["Terminal"]:
        """Show the bar while the block runs."""
        with self._progress:
            yield self

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text)

    def shares(self, title: str, rows: list[tuple[str, float]]) -> None:
        """Print names and their shares."""
        table = Table("share", title)
        for name, share in rows:
            table.add_row(f"{share:.1%}", name)
        self._console.print(table)

    def begin(self, experiment: Experiment, runs: int) -> None:
        """Restart the bar."""
        self._title = experiment.title
        self._progress.reset(self._task, total=runs, description=experiment.title)

    def run(self, contender: str, number: int) -> None:
        """Show the contender that is being measured."""
        self._progress.update(self._task, description=f"{self._title}: {contender}, round {number}")

    def step(self, values: dict[str, float]) -> None:
        """Count the run. Without a bar, print its figures."""
        self._progress.advance(self._task)
        if not self._console.is_terminal:
            description = self._progress.tasks[0].description
            self.say(f"{description}: {', '.join(f'{readable(value)} {name}' for name, value in values.items())}")

    def failed(self, reason: str) -> None:
        """Print why a contender stopped."""
        self.say(reason)

    def end(self, outcome: Outcome) -> None:
        """Print the experiment's table and its goals."""
        head, *rows = document.rows_of(outcome)
        table = Table(title=outcome.experiment.title, title_justify="left")
        for number, name in enumerate(head):
            table.add_column(name, justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)
        for asked, measured, reached in document.goals_of(outcome):
            self.say(f"  {_MARKS[reached]} {asked}: {measured}")
