"""Alembic, as a program and in this process."""

import os
import subprocess
import sys

import pytest
from alembic import command
from alembic.config import Config

from tests.programs.processes import ROOT


def alembic(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def upgrade(database_url: str, revision: str = "head") -> None:
    """Do what `alembic upgrade` does, in this process: starting another one takes longer than most migrations."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", database_url)
        command.upgrade(Config(ROOT / "alembic.ini"), revision)
