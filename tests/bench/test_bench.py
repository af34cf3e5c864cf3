"""The bench runs, for so short a time that its figures mean nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.environment.servers import Servers
from bench.environment.sizes import SMOKE
from bench.groups import GROUPS
from bench.report import document as report
from embedded.stack import ROOT


@pytest.mark.e2e
@pytest.mark.long
def test_the_bench_runs_from_its_servers_to_its_tables(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs" / "performance.md", document)
    argv = [sys.executable, "-m", "bench", "--smoke", "--folder", str(tmp_path), "--document", str(document)]
    parts = ["--contender", "ours", "--contender", "enqueue_many", "--only", "relay", "--only", "consumers"]

    done = subprocess.run([*argv, *parts], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / report.JSON_FILE).read_text())
    measured = {
        (experiment["key"], contender["name"]): contender["median"]
        for experiment in results["experiments"]
        for contender in experiment["contenders"]
    }
    assert measured["relay", "ours"]["rows/s"] > 0
    assert measured["relay", "enqueue_many, one UPDATE a batch"]["rows/s"] > 0
    assert measured["consumers", "ours, one rq worker"]["mails/s"] > 0
    assert "with --smoke" in document.read_text()


def test_the_performance_document_has_a_place_for_each_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Experiments are described, not run: the servers need not be there.
    monkeypatch.setattr(Servers, "new_database", lambda servers, name: servers.postgres.url(name))
    servers = Servers(tmp_path)

    experiments = [experiment for group in GROUPS.values() for experiment in group(servers, SMOKE)]

    report.find_places(ROOT / "docs" / "performance.md", map(report.part_of, experiments))
