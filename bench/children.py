"""Run contenders in processes of their own: start, wait until ready, go, read the figures.

The child's side is `ready()` and `report()`: it imports and connects, reports that it is ready, works on a command, and
prints one JSON object. It ends when its parent does, because it then reads the end of its standard input.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from bench.errors import ContenderFailedError
from embedded.errors import tail
from embedded.stack import ROOT

_READY: Final = "ready"
_KEPT: Final = ("PATH", "HOME", "LANG")
_END_SECONDS: Final = 5.0


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process: its own settings, and only PATH and HOME of the caller's."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | dict(settings)


class Child:
    """A contender's process; use it as a context manager, which ends it."""

    def __init__(self, module: str, arguments: Sequence[str], settings: Mapping[str, str], log_file: Path) -> None:
        """Start `python -m module` and return at once."""
        self._name = " ".join([module, *arguments[:1]])
        self._log_file = log_file
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=environment(settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """Return the running process."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.end()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until it has imported and connected. Raises ContenderFailedError."""
        if self._line() != _READY:
            raise ContenderFailedError(f"{self._name} did not become ready\n{tail(self._log_file)}")

    def go(self) -> None:
        """Start its work."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def figures(self) -> dict[str, float]:
        """Wait for its figures."""
        found: dict[str, float] = json.loads(self._line() or "null") or {}
        if not found:
            raise ContenderFailedError(f"{self._name} ended without figures\n{tail(self._log_file)}")
        return found

    def end(self) -> None:
        """Close its input, which ends it; kill it if that does not."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        return self._process.stdout.readline().strip()


def run_together(
    count: int, module: str, arguments: Sequence[str], settings: Mapping[str, str], log_file: Path
) -> list[dict[str, float]]:
    """Run this many equal processes, started at one moment, and return the figures of each."""
    with ExitStack() as undo:
        children = [undo.enter_context(Child(module, arguments, settings, log_file)) for _ in range(count)]
        for child in children:
            child.wait_until_ready()
        for child in children:
            child.go()
        return [child.figures() for child in children]


def ready() -> None:
    """In the child: report that it is ready, and wait for the command to go. Ends the process if the parent is gone."""
    print(_READY, flush=True)
    if not sys.stdin.readline():
        sys.exit(0)


def report(figures: Mapping[str, float]) -> None:
    """In the child: print the figures."""
    print(json.dumps(figures), flush=True)
