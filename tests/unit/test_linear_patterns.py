"""Every pattern that may meet foreign text takes time in proportion to its length, shown with a megabyte."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import pytest

import api
import consumer
import outbox_relay
import shared

PACKAGES = (api, consumer, outbox_relay, shared)
MEGABYTE = 1_000_000
SECONDS = 2.0
"""A linear pattern takes some milliseconds, a quadratic one hours."""

SHORT = 20_000
"""Enough to tell a quadratic one in seconds."""

BAD = [
    "a",
    "0 ",
    "@",
    ".",
    "-a",
    '"',
    "('",
    "=?",
    "\r\n",
    "?/",
    "a.",
    "a@",
    'connection to server at "',
    "Command # 1 ",
]
"""What is repeated: runs of what patterns take, and what they begin with."""

Pattern = re.Pattern[str] | re.Pattern[bytes]


def patterns() -> Iterator[tuple[str, Pattern, str]]:
    """Give each compiled pattern of a module with the way in which it is used."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            source = Path(str(module.__file__)).read_text()
            for name, value in vars(module).items():
                used = re.search(rf"\b{name}\.(\w+)\(", source) if isinstance(value, re.Pattern) else None
                if used:
                    yield f"{found.name}.{name}", value, used[1]


@pytest.mark.parametrize(("name", "pattern", "method"), [pytest.param(*found, id=found[0]) for found in patterns()])
def test_a_pattern_is_linear(name: str, pattern: Pattern, method: str) -> None:
    taken = {bad: seconds(pattern, method, bad, SHORT) for bad in BAD}
    worst = max(taken, key=lambda bad: taken[bad])

    assert taken[worst] < SECONDS, f"{name} takes too long for {worst!r}"
    assert seconds(pattern, method, worst, MEGABYTE) < SECONDS, f"{name} takes too long for {worst!r}"


def seconds(pattern: Pattern, method: str, bad: str, length: int) -> float:
    text = (bad * (length // len(bad) + 1))[:length]
    started = process_time()
    use(pattern, method, text)
    return process_time() - started


def use(pattern: Pattern, method: str, text: str) -> None:
    given = text.encode() if isinstance(pattern.pattern, bytes) else text
    if method == "sub":
        pattern.sub(given[:0], given)  # type: ignore[arg-type]
    elif method == "finditer":
        list(pattern.finditer(given))  # type: ignore[arg-type]
    else:
        getattr(pattern, method)(given)
