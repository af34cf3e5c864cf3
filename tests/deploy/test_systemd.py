"""The systemd units: what systemd itself says of them, and that they start what the tests start."""

import configparser
import inspect
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.settings.api import read_api_settings
from shared.settings.consumer import read_consumer_settings
from shared.settings.relay import read_relay_settings
from tests.programs.processes import ROOT, worker_settings

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
HOME = "/opt/outbox-signup"
LEAVE_SECONDS = 5


READERS: dict[str, Callable[[], object]] = {
    "api": read_api_settings,
    "relay": read_relay_settings,
    "worker": read_consumer_settings,
}
READ_BY_OTHERS = {"RQ_WORKER_CLASS"}
HARDENING = {
    "DynamicUser=yes",
    "CapabilityBoundingSet=",
    "MemoryDenyWriteExecute=yes",
    "PrivateIPC=yes",
    "PrivateUsers=yes",
    "ProcSubset=pid",
    "ProtectSystem=strict",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
}


def read(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser["Service"]


def example(process: str) -> dict[str, str]:
    """Return the variables of an example file as systemd reads them."""
    lines = (ROOT / "deploy" / "systemd" / f"{process}.env.example").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value.strip('"') for name, _, value in pairs}


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
def test_it_is_restarted_whatever_ended_it_and_stops_gracefully(unit: Path) -> None:
    service = read(unit)

    assert (service["Restart"], service["KillMode"], service["DynamicUser"]) == ("always", "mixed", "yes")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_may_do_as_little_as_it_can_do_with(unit: Path) -> None:
    assert HARDENING - set(unit.read_text().splitlines()) == set()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_wrong_setting_is_not_tried_each_second(unit: Path) -> None:
    """Nor is the end of anything else waited for: a crash is no wrong setting."""
    service = read(unit)
    command = shlex.split(service["ExecStopPost"])
    waits = [command[0], command[1], command[2].replace("sleep 20", "false")]

    def waited(exit_status: str) -> bool:
        return subprocess.run(waits, env={"EXIT_STATUS": exit_status}, check=False).returncode != 0

    assert {status for status in ("0", "1", "2", "3", "KILL", "TERM") if waited(status)} == {"2"}
    assert float(service["TimeoutStopSec"]) > 20


@pytest.mark.parametrize("process", sorted(READERS))
def test_an_example_of_its_settings_is_enough_for_it_to_start(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in example(process).items():
        monkeypatch.setenv(name, value or "k" * 43)

    READERS[process]()


@pytest.mark.parametrize("process", sorted(READERS))
def test_an_example_has_no_secret_and_nothing_that_the_process_does_not_read(process: str) -> None:
    known = set(re.findall('"([A-Z][A-Z_]+)"', inspect.getsource(READERS[process])))
    given = example(process)

    assert given.keys() - known - READ_BY_OTHERS == set()
    assert given.get("SECRET_KEY", "") == ""
    assert ":PASSWORD@" in given["DATABASE_URL"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_reads_the_file_that_its_example_names(unit: Path) -> None:
    file = read(unit)["EnvironmentFile"]
    process = Path(file).stem
    text = (ROOT / "deploy" / "systemd" / f"{process}.env.example").read_text()

    assert f"install -D -m 600 deploy/systemd/{process}.env.example {file}\n" in text


def test_a_worker_that_is_stopped_may_finish_its_send(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in worker_settings("postgresql://h/d", "redis://h", "smtp://h").items():
        monkeypatch.setenv(name, value)
    needed = read_consumer_settings().send_deadline_seconds + LEAVE_SECONDS

    assert float(read(ROOT / "deploy" / "systemd" / "outbox-worker@.service")["TimeoutStopSec"]) > needed
