"""What failed may run once more, and the floor of the coverage holds all the same."""

import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.coverage.__main__ import FLOOR, run_tests
from tests.programs.processes import ROOT

FAILS_AT_FIRST = """
from pathlib import Path

import shared.doubling_pause

def test_fails_at_first():
    ran = Path(__file__).with_suffix(".ran")
    first = not ran.exists()
    ran.touch()
    assert not first

def test_passes():
    with Path(__file__).with_suffix(".passed").open("a") as file:
        file.write("x")
"""
FAILS_ALWAYS = "def test_fails():\n    assert False\n"
CANNOT_BE_READ = "import a_module_that_does_not_exist\n"

# Without the plugins of the environment, which take longer to import than these tests to run.
WITHOUT_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}
IN_PARALLEL = ["--numprocesses=1", "--dist=loadfile", "--no-loadscope-reorder"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WITHOUT_PLUGINS.items():
        monkeypatch.setenv(name, value)


def _tests(folder: Path, code: str) -> Path:
    file = folder / "test_written.py"
    file.write_text(code)
    return file


def test_what_failed_runs_once_more_alone_and_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = _tests(tmp_path, FAILS_AT_FIRST)

    exit_code = run_tests([*IN_PARALLEL, str(file)], tmp_path / "cache", retry_failed=True)

    output = capfd.readouterr().out
    assert exit_code == 0, output
    assert file.with_suffix(".passed").read_text() == "x"
    assert "RETRY: 1 failed, and run once more, alone:\n  test_written.py::test_fails_at_first\n" in output
    assert output.endswith("RETRY: what failed at first passed, alone:\n  test_written.py::test_fails_at_first\n\n")


@pytest.mark.parametrize(
    ("code", "retry_failed", "exit_code"),
    [
        pytest.param(FAILS_AT_FIRST, False, 1, id="nobody asked for it"),
        pytest.param(FAILS_ALWAYS, True, 1, id="it fails again", marks=pytest.mark.long),
        pytest.param(CANNOT_BE_READ, True, 2, id="nothing ran", marks=pytest.mark.long),
    ],
)
def test_the_run_fails_all_the_same(tmp_path: Path, code: str, *, retry_failed: bool, exit_code: int) -> None:
    file = _tests(tmp_path, code)

    assert run_tests([str(file)], tmp_path / "cache", retry_failed=retry_failed) == exit_code


@pytest.mark.long
def test_the_floor_holds_after_a_retry(tmp_path: Path) -> None:
    # An environment of its own, because each Python process of the environment is measured.
    venv.create(tmp_path / "venv", symlinks=True)
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    (packages / "outer.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    file = _tests(tmp_path, FAILS_AT_FIRST)

    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-m", "tests.coverage", "--retry-failed", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 2, done.stdout + done.stderr
    assert "RETRY: what failed at first passed, alone:" in done.stdout
    assert f"the floor is {FLOOR}%" in done.stdout
    assert sorted(file.name for file in packages.glob("*.pth")) == ["outer.pth"]
