"""The files that GitHub and pre-commit read, held against their published schemas and against what the project runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.programs.processes import ROOT

FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
FORMS = sorted(file for file in (FOLDER / "ISSUE_TEMPLATE").glob("*.yml") if file.stem != "config")
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [FOLDER / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.dependabot": [FOLDER / "dependabot.yml"],
}
USED = re.compile(r"^ *(?:- )?uses: (?P<action>\S+?)@(?P<commit>[0-9a-f]{40}) # v\d+\.\d+\.\d+$", re.MULTILINE)


def read(workflow: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(FOLDER / "workflows" / f"{workflow}.yml")
    return found


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_published_schema_allows_them(schema: str) -> None:
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]

    done = subprocess.run([*program, *SCHEMAS[schema]], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_action_is_pinned_by_its_commit(file: Path) -> None:
    text = file.read_text()

    assert text.count("uses:") == len(USED.findall(text)) > 0


def test_an_action_has_one_version() -> None:
    used = {match[0].strip("- ") for file in WORKFLOWS for match in USED.finditer(file.read_text())}
    actions = [line.partition("@")[0] for line in used]

    assert len(actions) == len(set(actions))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_reads_the_code_and_no_more(file: Path) -> None:
    workflow = read(file.stem)

    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert "secrets" not in file.read_text()
    assert "pull_request_target" not in workflow["on"]
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    checkouts = [
        step for job in workflow["jobs"].values() for step in job["steps"] if "checkout" in step.get("uses", "")
    ]
    assert checkouts
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_ci_runs_what_must_pass_before_a_change_lands() -> None:
    [job] = read("ci")["jobs"].values()

    assert job["steps"][-1]["run"] == ".ci/run"
    assert job["strategy"]["matrix"] == {"python": ["3.11", "3.12", "3.13"], "postgresql": ["14", "18"]}
    assert f">={job['strategy']['matrix']['python'][0]}\n" in (ROOT / "setup.cfg").read_text()


def test_an_option_of_a_workflow_reaches_no_shell_as_text() -> None:
    steps = [step for file in WORKFLOWS for job in read(file.stem)["jobs"].values() for step in job["steps"]]

    assert not any("${{" in step.get("run", "") for step in steps)


def test_hooks_run_the_programs_of_the_virtual_environment() -> None:
    config: dict[str, Any] = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")
    [repository] = config["repos"]
    commands = {hook["id"]: hook["entry"] for hook in repository["hooks"] if hook["language"] == "system"}

    assert repository["repo"] == "local"
    assert all(command.startswith((".venv/bin/", "git ")) for command in commands.values())
    hooks = {command.removeprefix(".venv/bin/").replace(" --force-exclude", "") for command in commands.values()}
    assert {command.removesuffix(" .").replace(" --check", "") for command in check_recipe()} <= hooks


def check_recipe() -> list[str]:
    """Return the commands that `make check` runs, without the folder of their programs."""
    makefile = (ROOT / "Makefile").read_text()
    [recipe] = re.findall(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    return [line.removeprefix("$(RUN)/") for line in recipe.replace("\t", "").splitlines()]


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("Rename the relay's loop", True),
        ("Rename the relay's loop\n\nBecause.\n", True),
        ("fixup! Fix", True),
        ("Fix", False),
        ("Fix it" * 13, False),
        ("Fix\n\nA long body does not make up for it.\n", False),
    ],
)
def test_the_hook_checks_subjects(subject: str, allowed: bool) -> None:  # noqa: FBT001 - a row of the table above
    config: dict[str, Any] = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")
    [pattern] = [hook["entry"] for hook in config["repos"][0]["hooks"] if hook["id"] == "subject"]

    assert (re.search(pattern, subject, re.MULTILINE | re.DOTALL) is None) is allowed


def test_what_make_test_leaves_out_is_run_before_a_change_lands() -> None:
    left_out = '-m "not long"'
    run_by_ci = ["make coverage", "make world"]

    assert left_out in commands_of("test")
    assert [target for target in ("test-all", "coverage", "world") if left_out in commands_of(target)] == []
    assert [command for command in run_by_ci if command not in (ROOT / ".ci" / "run").read_text()] == []


def commands_of(target: str) -> str:
    argv = ["/usr/bin/env", "make", "--dry-run", target]
    return subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
