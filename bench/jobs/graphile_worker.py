"""graphile-worker, which runs on Node.js. It is installed by `npm ci --prefix bench/jobs/graphile`."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import psycopg

FOLDER: Final = Path(__file__).with_name("graphile")
_PROGRAM: Final = FOLDER / "node_modules" / "graphile-worker" / "dist" / "cli.js"


def is_installed() -> bool:
    """Return whether Node.js and the package are there."""
    return shutil.which("node") is not None and _PROGRAM.exists()


def command() -> list[str | Path]:
    """Return the command line of a worker with the settings of its guide to performance."""
    return ["node", _PROGRAM, "--config", FOLDER / "graphile.config.js"]


def enqueue(count: int) -> None:
    """Create its tables and put the jobs into them."""
    subprocess.run([*command(), "--schema-only"], check=True, stdout=subprocess.DEVNULL)
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(
            """
            SELECT count(added)
              FROM (
                  SELECT array_agg(
                      (%s, json_build_object('number', n), NULL, NULL, NULL, NULL, NULL, NULL)
                          ::graphile_worker.job_spec
                  ) AS specs
                    FROM generate_series(1, %s) AS n
              ) AS jobs, LATERAL graphile_worker.add_jobs(jobs.specs) AS added
            """,
            ["nothing", count],
        )
