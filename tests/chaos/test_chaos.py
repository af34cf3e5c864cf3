"""A short chaos run with a fixed seed. `make world` makes one with RQ's stock class, `make chaos` longer ones."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from embedded.stack import ROOT
from tests.chaos.plan import KINDS, choose_kinds
from tests.chaos.report import table
from tests.chaos.run import Options, run
from tests.chaos.supervisor import other_processes
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

ENDINGS = (signal.SIGTERM, signal.SIGKILL)


def test_nothing_is_lost_while_everything_fails(server_folder: Path) -> None:
    # An answer that takes longer than a second is a slow one.
    play(Options(742, 9.0, 8.0, tuple(KINDS), "own", parent=server_folder, slow_seconds=1.5))


@pytest.mark.long
def test_a_handler_that_takes_longer_than_the_run_lease_counts_once(server_folder: Path) -> None:
    play(Options(1905, 10.0, 8.0, choose_kinds("worker,postgres"), "own", parent=server_folder))


def play(options: Options) -> None:
    outcome = run(options)

    report = table(options, outcome.account)
    figures = outcome.account.figures
    assert outcome.account.wrong == [], report
    assert figures["committed"] == figures["mailed"], report
    for kind in ("Done() jobs", "messages for the slow destination", "messages for the destination that is down"):
        assert figures[kind] != 0, report
    assert len(outcome.account.faults) >= 4, report
    assert outcome.folder is None


@pytest.fixture(scope="module")
def runs(server_folder: Path) -> Iterator[dict[signal.Signals, subprocess.Popen[str]]]:
    """A run for each way to end it; they start side by side."""
    argv = [sys.executable, "-m", "tests.chaos", "--faults", "worker-stop", "--folder", str(server_folder)]
    argv += ["--relays", "1", "--workers", "1"]
    with ExitStack() as stack:
        begun: dict[signal.Signals, subprocess.Popen[str]] = {}
        for number in ENDINGS:
            begun[number] = stack.enter_context(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True))
            stack.callback(begun[number].kill)
        yield begun


@pytest.mark.long
@pytest.mark.parametrize("number", ENDINGS)
def test_a_run_that_is_ended_leaves_no_process_behind(
    number: signal.Signals, runs: dict[signal.Signals, subprocess.Popen[str]]
) -> None:
    chaos = runs[number]
    assert chaos.stdout is not None
    folder = next(line for line in chaos.stdout if line.startswith("logs: ")).removeprefix("logs: ").strip()
    # A process that is stopped is the hardest to end.
    wait_until(lambda: "T" in states_of_processes(folder), 60, "a worker that is stopped")

    chaos.send_signal(number)
    chaos.communicate(timeout=60)

    wait_until(lambda: states_of_processes(folder) == [], 20, "every process of the run to end")


def states_of_processes(folder: str) -> list[str]:
    """The states of the processes that the folder appears in: in their environment or on their command line."""
    return [state for pid in other_processes() if (state := _state(pid, folder.encode())) not in {None, "Z"}]


def _state(pid: int, text: bytes) -> str | None:
    process = Path("/proc", str(pid))
    try:
        if text not in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
            return None
        return (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
