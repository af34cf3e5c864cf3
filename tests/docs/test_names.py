"""The files and functions that the documents name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]
PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|sql|md|ya?ml|cfg|toml|json|sh|lock|gz|html|txt))?)(?:::\w+)?`")
MADE = (".outbox/", ".bench/", ".compose-proof/")
"""Folders that commands make."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_there(document: Path) -> None:
    named = set(PATH.findall(document.read_text()))
    assert [name for name in sorted(named) if not name.startswith(MADE) and not (ROOT / name).exists()] == []


def test_functions_of_the_steps_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(
        r"(?m)^\| .+? \| .+? \| (.+?) \| .* \|$", text[text.index("| step |") : text.index("## How the API")]
    )
    named = {name for row in rows for name in re.findall(r"`(?:\w+\.)?([A-Za-z_]+)`", row)}
    packages = ("api", "consumer", "outbox_relay", "shared")
    sources = "".join(path.read_text() for package in packages for path in (ROOT / package).rglob("*.py"))

    assert len(named) > 30
    assert [name for name in sorted(named) if not re.search(rf"\b(?:def|class) {name}\b", sources)] == []
