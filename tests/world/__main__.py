"""`make world`: the tests of the pipeline, the processes and the commands, on Debian's servers.

Exit code 1 when a test fails, and where CI is set also when one is skipped. Where root or packages are missing, it says
so and does nothing.
"""

import os
import subprocess
import sys
from typing import Final

import click

from embedded.servers.postgres_files import PROGRAMS_VARIABLE
from embedded.servers.redis import PROGRAM_VARIABLE
from tests.programs.processes import ROOT
from tests.world import packages

TESTS: Final = (
    "tests/world",
    "tests/e2e",
    "tests/api",
    "tests/consumer",
    "tests/docs",
    "tests/outbox_relay",
    "tests/redis_client",
    "tests/schema",
    "tests/shared",
    "tests/sql_against_model",
)

SERVERS: Final = ("--postgres-schema=world", "--postgres-setting=datestyle=SQL, DMY")
"""As somebody else may have set a PostgreSQL up."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(arguments: tuple[str, ...]) -> None:
    """Run the tests; ARGUMENTS are pytest's, and tests in place of all."""
    if reasons := packages.missing():
        click.echo("\n".join(["make world is skipped:", *(f"- {reason}" for reason in reasons)]), err=True)
        sys.exit(1 if os.environ.get("CI") else 0)
    servers = {PROGRAMS_VARIABLE: str(packages.postgres_programs()), PROGRAM_VARIABLE: str(packages.REDIS)}
    options = ["-p", "tests.world.strict", "--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder", *SERVERS]
    tests = [] if any(argument.startswith("tests/") for argument in arguments) else TESTS
    command = [sys.executable, "-m", "pytest", *options, *arguments, *tests]
    sys.exit(subprocess.run(command, env={**os.environ, **servers}, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main(prog_name="python -m tests.world")
