"""SECURITY.md claims nothing that no test shows."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
MODEL = TEXT[TEXT.index("## Threat model") :]
ACTORS = (
    "An anonymous client",
    "The mail server",
    "The receiver of a webhook",
    "A program that writes to Redis",
    "A service that may insert rows",
    "An operator",
    "Local users of a developer's machine",
)


def claims() -> Iterator[list[str]]:
    """Return the cells of each row of the tables of what holds."""
    for line in MODEL.splitlines():
        if line.startswith("| ") and not line.startswith(("| What holds |", "|---")):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_every_actor_has_what_holds_and_what_does_not() -> None:
    sections = re.split(r"^### ", MODEL, flags=re.MULTILINE)[1:]

    assert tuple(section.splitlines()[0] for section in sections) == ACTORS
    assert all("| What holds | Shown by |" in section for section in sections)
    assert all("**What does not hold**" in section for section in sections)


@pytest.mark.parametrize("claim", list(claims()), ids=lambda claim: claim[0][:60])
def test_every_claim_names_its_test(claim: list[str]) -> None:
    assert len(claim) == 2
    assert NAMED.search(claim[1])


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(TEXT))))
def test_every_named_test_is_there(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (ROOT / file).read_text()


def test_nothing_that_looks_like_a_test_is_overlooked() -> None:
    assert TEXT.count("::test_") == len(NAMED.findall(TEXT))
