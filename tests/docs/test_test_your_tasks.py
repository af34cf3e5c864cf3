"""docs/how-to/test-your-tasks.md is followed as it is written, with the tasks of add-a-task.md beside it."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from embedded.servers.postgres_files import binaries
from tests.programs.processes import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def blocks(name: str, kind: str) -> list[str]:
    text = (ROOT / "docs" / "how-to" / name).read_text()
    return re.findall(rf"(?ms)^```{kind}\n(.*?)^```", text)


def test_tasks_are_tested_as_it_is_described(tmp_path: Path, empty_database_url: str) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "tasks.py").write_text(blocks("add-a-task.md", "python")[0])
    text, html = blocks("add-a-task.md", "jinja")
    (package / "password_changed.txt").write_text(text)
    (package / "password_changed.html").write_text(html)
    examples = blocks("test-your-tasks.md", "python")
    (package / "test_tasks.py").write_text("\n\n".join(examples))
    environment = {
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "TEST_DATABASE_URL": empty_database_url,
        "PATH": f"{binaries()}:/usr/bin:/bin",
    }

    def run(folder: Path, *argv: str) -> str:
        done = subprocess.run(
            argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    [schema] = blocks("test-your-tasks.md", "sh")
    run(ROOT, "/bin/sh", "-euc", schema)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(blocks("add-a-task.md", "sql")[0].encode())
    tested = run(tmp_path, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", str(package))

    assert f"{sum(each.count('def test_') for each in examples)} passed" in tested
