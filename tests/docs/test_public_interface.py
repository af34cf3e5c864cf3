"""docs/reference/tasks.md lists the public interface, and the examples of the documents use nothing else."""

import ast
import dataclasses
import re
from importlib import import_module
from pathlib import Path

import pytest

from consumer.task import Context, Task
from tests.programs.processes import ROOT

REFERENCE = (ROOT / "docs" / "reference" / "tasks.md").read_text()
MODULES = re.findall(r"(?m)^## ([\w.]+)$", REFERENCE)
OURS = {"api", "consumer", "outbox_relay", "redis_client", "shared", "embedded", "bench", "tests"}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rows_below(heading: str) -> list[str]:
    """Return the names in the first column of the table below a heading."""
    section = REFERENCE.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    first_cells = re.findall(r"(?m)^\| (`.+?) \|", section)
    return [name for cell in first_cells for name in re.findall(r"`(\w+)", cell)]


def examples() -> list[tuple[Path, str]]:
    """Return each Python example of the documents."""
    return [
        (document, block)
        for document in DOCUMENTS
        for block in re.findall(r"(?ms)^```python\n(.*?)^```", document.read_text())
    ]


def test_three_modules_are_public() -> None:
    assert {"shared.outbox", "consumer.task"} <= set(MODULES) <= {"shared.outbox", "consumer.task", "shared.testing"}


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_lists_each_public_name_and_no_other(module: str) -> None:
    assert sorted(rows_below(f"## {module}")) == sorted(import_module(module).__all__)


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_is_there_and_documented(module: str) -> None:
    public = {name: getattr(import_module(module), name) for name in import_module(module).__all__}

    assert [name for name, value in public.items() if callable(value) and not value.__doc__] == []


def test_the_reference_lists_each_attribute_of_a_context() -> None:
    attributes = [name for name in dir(Context) if not name.startswith("_")]

    assert sorted(rows_below("### Context")) == sorted([*attributes, "settings"])


def test_the_reference_lists_each_argument_of_a_task() -> None:
    assert rows_below("### Task") == [each.name for each in dataclasses.fields(Task)]


def test_the_examples_import_public_names_alone() -> None:
    public = {(module, name) for module in MODULES for name in import_module(module).__all__}
    imported = {
        (document.name, node.module, alias.name)
        for document, source in examples()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] in OURS
        for alias in node.names
    }

    assert len(imported) >= 5
    assert {each for each in imported if each[1:] not in public} == set()
