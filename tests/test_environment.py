"""The tests' own environment."""

import re

from tests.environment import is_ignored
from tests.programs.processes import ROOT


def test_no_setting_of_the_environment_reaches_the_tests() -> None:
    section = (ROOT / "docs" / "configuration.md").read_text().partition("## Environment\n")[2].partition("\n## ")[0]
    names = re.findall(r"(?m)^\| ([A-Z_]+) \|", section)

    assert len(names) > 40
    assert [name for name in names if not is_ignored(name)] == []
