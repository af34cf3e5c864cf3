"""Run the test suite and measure which of the product's lines and branches it runs, in all its processes.

Tests start processes with an environment of their own, so that no variable can ask for them to be measured. A .pth
file in the virtual environment starts the measurement in each Python process, as long as this process runs. A forked
process continues to be measured, and writes a file of its own when it ends, also by os._exit. What a process has run
that a test kills with SIGKILL is not counted, and neither is what runs in another virtual environment.

Exit code: pytest's, else 2 when less than FLOOR of the lines and branches was run.
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


def main(arguments: Sequence[str]) -> int:
    """Run pytest with the arguments, print the report, and return the exit code."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="outbox-coverage-", dir=memory) as folder:
        with measured(Path(folder)) as configuration:
            tests = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, check=False)
        if tests.returncode != 0:
            return tests.returncode
        return _report(configuration)


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
    sys.exit(main(sys.argv[1:]))
