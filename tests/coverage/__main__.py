"""Run the test suite and measure which of the product's lines and branches it runs, in all its processes.

Tests start processes with an environment of their own, so that no variable can ask for them to be measured. A .pth
file in the virtual environment starts the measurement in each Python process, as long as this process runs. A forked
process continues to be measured, and writes a file of its own when it ends, also by os._exit. What a process has run
that a test kills with SIGKILL is not counted, and neither is what runs in another virtual environment.

With --retry-failed, what fails is run once more, alone, and has to pass. Its measurement counts as well, and the floor
holds all the same.

Exit code: that of the last run of pytest, else 2 when less than FLOOR of the lines and branches was run.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import pytest

from tests.programs.processes import ROOT

PRODUCT: Final = ("api", "consumer", "outbox_relay", "redis_client", "shared")
FLOOR: Final = 95

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made in it has a random name
_PTH: Final = Path(sysconfig.get_path("purelib")) / "outbox_coverage.pth"
# One line: Python runs those lines of a .pth file that start with "import". Nothing is measured where the configuration
# cannot be read, as by another account, or when the run is over.
_START: Final = (
    "import os; os.path.exists({run!r}) and os.path.exists({configuration!r})"
    " and (os.environ.__setitem__('COVERAGE_PROCESS_START', {configuration!r}),"
    " __import__('coverage').process_startup(), os.environ.__delitem__('COVERAGE_PROCESS_START'))\n"
)
_CONFIGURATION: Final = """\
[run]
branch = true
parallel = true
patch = _exit
data_file = {folder}/data
source_dirs =
    {sources}

[report]
fail_under = {floor}
skip_covered = true
skip_empty = true
show_missing = true
exclude_also =
    if TYPE_CHECKING:
    @overload
"""


@contextmanager
def measured(folder: Path) -> Iterator[Path]:
    """Let each Python process of this virtual environment be measured; yields the configuration."""
    configuration = folder / "configuration"
    sources = "\n    ".join(str(ROOT / package) for package in PRODUCT)
    configuration.write_text(_CONFIGURATION.format(folder=folder, sources=sources, floor=FLOOR))
    _PTH.write_text(_START.format(run=f"/proc/{os.getpid()}", configuration=str(configuration)))
    try:
        yield configuration
    finally:
        _PTH.unlink()


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--retry-failed", is_flag=True, help="Run the tests that failed once more, alone; they have to pass.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(*, retry_failed: bool, arguments: tuple[str, ...]) -> None:
    """Run the tests and print the report. ARGUMENTS are pytest's."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="outbox-coverage-", dir=memory) as folder:
        with measured(Path(folder)) as configuration:
            exit_code = run_tests(arguments, Path(folder) / "pytest", retry_failed=retry_failed)
        sys.exit(exit_code or _report(configuration))


def run_tests(arguments: Sequence[str], cache: Path, *, retry_failed: bool) -> int:
    """Run pytest with the arguments, and return its exit code: that of the second run, if there is one.

    Args:
        arguments: of pytest.
        cache: for what pytest notes about this run. In the project's own cache, failures of other runs would be noted.
        retry_failed: whether the tests that failed are run once more, alone. Other errors end the run at once.

    """
    arguments = [*arguments, "--override-ini", f"cache_dir={cache}"]
    exit_code = _pytest(arguments)
    if exit_code != pytest.ExitCode.TESTS_FAILED or not retry_failed:
        return exit_code
    failed = sorted(json.loads((cache / "v" / "cache" / "lastfailed").read_text()))
    click.secho(f"RETRY: {len(failed)} failed, and run once more, alone:", bold=True)
    click.echo("".join(f"  {test}\n" for test in failed))
    exit_code = _pytest([*arguments, "--numprocesses=0", "--last-failed", "--last-failed-no-failures=none"])
    outcome = "failed again" if exit_code else "passed, alone"
    click.secho(f"RETRY: what failed at first {outcome}:", bold=True)
    click.echo("".join(f"  {test}\n" for test in failed))
    return exit_code


def _pytest(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


def _report(configuration: Path) -> int:
    """Print what was not run, by file, and the share of the branches; return 2 below the floor, else 0."""
    option = f"--rcfile={configuration}"
    _coverage("combine", option, "--quiet").check_returncode()
    below = _coverage("report", option).returncode
    totals_file = configuration.with_name("totals.json")
    _coverage("json", option, "--quiet", "--fail-under=0", "-o", str(totals_file)).check_returncode()
    totals = json.loads(totals_file.read_text())["totals"]
    branches = totals["covered_branches"] / totals["num_branches"]
    click.echo(
        f"{totals['percent_covered']:.1f}% of lines and branches, {branches:.1%} of branches; the floor is {FLOOR}%"
    )
    return below


def _coverage(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=ROOT, check=False)


if __name__ == "__main__":
    main(prog_name="python -m tests.coverage")
