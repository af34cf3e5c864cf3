"""Each decision has a date, a status and its sections, and is listed in docs/decisions/README.md as it says itself."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
LISTED = {
    row[1]: row
    for row in re.findall(
        r"(?m)^\| (\d+) \| \[.+?\]\((.+?)\) \| (\S+) \| (.+?) \|$", (FOLDER / "README.md").read_text()
    )
}
HEAD = re.compile(r"# (\d+)\. (.+)\n\n- Date: (\d{4}-\d\d-\d\d)\n- Status: (.+)\n")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem[:4])
def test_it_is_complete_and_listed(record: Path) -> None:
    text = record.read_text()
    head = HEAD.match(text)
    assert head is not None
    number, title, date, status = head.groups()

    assert re.findall(r"(?m)^## (.+)$", text) == ["Context", "Decision", "Consequences"]
    assert int(number) == int(record.name[:4])
    assert re.match(r"accepted|superseded by \[\d+\]", status)
    assert LISTED[record.name][0] == number
    assert f"[{title}]({record.name})" in (FOLDER / "README.md").read_text()
    assert LISTED[record.name][2] == date
    assert status.startswith(LISTED[record.name][3])


def test_nothing_else_is_listed() -> None:
    assert sorted(LISTED) == [record.name for record in RECORDS]
