"""The systemd units: what systemd itself says of them, and that they start what the tests start."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.settings import read_consumer_settings
from tests.processes import ROOT, worker_settings

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
HOME = "/opt/outbox-signup"
LEAVE_SECONDS = 5


def read(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser["Service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_it(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on the PATH: it is in Debian's package systemd")
    home = tmp_path / "home"
    for name in ("gunicorn", "python", "rq"):
        program = home / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    copy = tmp_path / unit.name.replace("@", "@1")
    copy.write_text(unit.read_text().replace(HOME, str(home)))

    done = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True, check=False)

    assert (done.returncode, [line for line in done.stderr.splitlines() if copy.name in line]) == (0, [])


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("outbox-api.service", "gunicorn -c gunicorn.conf.py 'api:create_app()'"),
        ("outbox-relay@.service", "python -m outbox_relay"),
        ("outbox-worker@.service", "rq worker critical default"),
    ],
)
def test_it_starts_the_command_of_the_readme(name: str, command: str) -> None:
    service = read(ROOT / "deploy" / "systemd" / name)

    assert service["ExecStart"] == f"{HOME}/.venv/bin/{command}"
    assert service["WorkingDirectory"] == HOME


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_comes_back_whatever_ended_it_and_is_stopped_gently(unit: Path) -> None:
    service = read(unit)

    assert (service["Restart"], service["KillMode"], service["DynamicUser"]) == ("always", "mixed", "yes")


def test_a_worker_that_is_stopped_may_finish_its_send(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in worker_settings("postgresql://h/d", "redis://h", "smtp://h").items():
        monkeypatch.setenv(name, value)
    needed = read_consumer_settings().send_deadline_seconds + LEAVE_SECONDS

    assert float(read(ROOT / "deploy" / "systemd" / "outbox-worker@.service")["TimeoutStopSec"]) > needed
