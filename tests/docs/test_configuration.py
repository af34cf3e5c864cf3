"""docs/configuration.md lists every variable that the settings read."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_variable_is_listed() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "shared" / "settings").glob("*.py"))
    read = set(re.findall(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|PORT)"', sources))
    listed = set(re.findall(r"(?m)^\| ([A-Z_]+) \|", (ROOT / "docs" / "configuration.md").read_text()))

    assert len(read) > 30
    assert sorted(read - listed) == []
