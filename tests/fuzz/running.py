"""Running schemathesis as a program of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fuzz(api_url: str, folder: Path, *, examples: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Send every operation so many requests, good and bad; what schemathesis says is the process's output.

    Args:
        api_url: where the API answers.
        folder: where schemathesis leaves what it remembers.
        examples: requests of each operation in the last of its phases.
        seed: what makes the requests the same again.

    """
    command = [Path(sys.executable).with_name("st"), "run", f"{api_url}/openapi.json", "--checks", "all", "--no-color"]
    options = ["--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none"]
    return subprocess.run(
        [*command, *options],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def failures(log: str) -> list[str]:
    """Give the lines of the API's log that tell of a failure of ours."""
    return [line for line in log.splitlines() if "request failed" in line or "Traceback" in line or '" 500 ' in line]
