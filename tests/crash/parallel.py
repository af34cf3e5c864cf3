"""Runs several scenes at a time, since each spends most of its time waiting for a lease to end."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import pytest

AT_ONCE: Final = 10


@contextmanager
def run_in_parallel(
    request: pytest.FixtureRequest, run: Callable[[str], None], at_once: int = AT_ONCE
) -> Iterator[dict[str, Future[None]]]:
    """Start the scenes of this module's selected tests, in order, by their parameter `key`.

    With pytest-xdist a module has to stay whole (`--dist loadfile`): each process runs all of its scenes.
    """
    asked = [
        str(item.callspec.params["key"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    with ThreadPoolExecutor(at_once, "scene") as pool:
        yield {key: pool.submit(run, key) for key in asked}
        pool.shutdown(cancel_futures=True)
