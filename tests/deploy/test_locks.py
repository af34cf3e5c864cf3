"""The lock files: they hold what setup.cfg asks for, one version of each package, and each file by its hash."""

import configparser
import re
from itertools import combinations

import pytest
from packaging.requirements import Requirement

from tests.programs.processes import ROOT

EXTRAS = {
    "requirements.lock": None,
    "requirements-demo.lock": "embedded",
    "requirements-dev.lock": "dev",
    "requirements-tracing.lock": "tracing",
    "requirements-bench.lock": "bench",
}
LOCKED = re.compile(
    r"^(?P<requirement>[A-Za-z0-9._-]+==[^\\\n]+)\\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE
)


def locked(name: str) -> dict[str, Requirement]:
    """Return the requirements of a lock by their packages' names."""
    requirements = [Requirement(match["requirement"]) for match in LOCKED.finditer((ROOT / name).read_text())]
    return {requirement.name: requirement for requirement in requirements}


def asked(extra: str | None) -> list[Requirement]:
    """Return what setup.cfg asks for: always, and with an extra."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options"]["install_requires"].splitlines()
    if extra is not None:
        lines += parser["options.extras_require"][extra].splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_lock_is_known() -> None:
    assert {file.name for file in ROOT.glob("*.lock")} == set(EXTRAS)


@pytest.mark.parametrize("name", EXTRAS)
def test_every_line_of_a_lock_belongs_to_a_version_and_its_hashes(name: str) -> None:
    left = LOCKED.sub("", (ROOT / name).read_text())

    assert [line for line in left.splitlines() if line and not line.startswith("#")] == []


@pytest.mark.parametrize(("name", "extra"), EXTRAS.items())
def test_a_lock_holds_what_setup_cfg_asks_for_on_every_python(name: str, extra: str | None) -> None:
    versions = locked(name)

    for requirement in asked(extra):
        found = versions[requirement.name.lower()]
        [pinned] = found.specifier
        assert pinned.version in requirement.specifier, requirement
        assert found.marker == requirement.marker, requirement


@pytest.mark.parametrize(("one", "other"), [*combinations(EXTRAS, 2)])
def test_two_locks_hold_the_same_version_of_a_package(one: str, other: str) -> None:
    first, second = locked(one), locked(other)

    assert {first[name] for name in first.keys() & second} == {second[name] for name in first.keys() & second}


@pytest.mark.parametrize("smaller", ["requirements.lock", "requirements-demo.lock", "requirements-tracing.lock"])
def test_the_tests_run_with_the_versions_of_the_smaller_locks(smaller: str) -> None:
    assert set(locked(smaller).values()) <= set(locked("requirements-dev.lock").values())
