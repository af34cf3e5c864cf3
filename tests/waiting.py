"""Wait for a condition with a deadline, instead of a fixed sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

_PAUSE_SECONDS = 0.02


def wait_until(
    predicate: Callable[[], Found], timeout: float, what: str, pause_seconds: float = _PAUSE_SECONDS
) -> Found:
    """Call predicate until it returns something true, and return that; fail naming what was waited for."""
    deadline = time.monotonic() + timeout
    while not (found := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; the last check found {found!r}")
        time.sleep(pause_seconds)
    return found
