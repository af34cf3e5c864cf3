"""Every pattern that may meet foreign text takes time in proportion to its length, up to a megabyte."""

import importlib
import pkgutil
import re
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import process_time

import pytest

import api
import consumer
import outbox_relay
import shared

PACKAGES = (api, consumer, outbox_relay, shared)
LENGTHS = (2_500, 50_000, 1_000_000)
MOST_GROWTH = 8.0
"""How much more than in proportion the time may grow from one length to the next: a quadratic one's grows by 20."""

LEAST_SECONDS = 0.001
"""Less than this is the clock's error, not the pattern's time."""

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
    """Return each compiled pattern of a module with the way in which it is used."""
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
    taken = {bad: seconds(pattern, method, bad, LENGTHS[0]) for bad in BAD}
    worst = max(taken, key=lambda bad: taken[bad])

    for shorter, longer in pairwise(LENGTHS):
        growth = seconds(pattern, method, worst, longer) / max(seconds(pattern, method, worst, shorter), LEAST_SECONDS)
        most = MOST_GROWTH * longer / shorter

        assert growth < most, f"{name} takes {growth:.0f} times as long for {longer // shorter} times {worst!r}"


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
        deque(pattern.finditer(given), maxlen=0)  # type: ignore[arg-type]
    else:
        getattr(pattern, method)(given)
