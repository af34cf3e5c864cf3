"""Debian's Postfix, and the service's processes on Debian's servers."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import absent
from tests.world import packages
from tests.world.postfix import Postfix


@pytest.fixture(scope="session", autouse=True)
def debian() -> None:
    """Without Debian's servers nothing here means anything."""
    if reasons := packages.missing():
        absent("; ".join(reasons))


@pytest.fixture
def start_postfix(server_folder: Path) -> Iterator[Callable[..., Postfix]]:
    """A function that starts a Postfix with settings of main.cf; it is stopped in the end."""
    started: list[Postfix] = []

    def start(**settings: str) -> Postfix:
        server = Postfix(server_folder / f"postfix-{secrets.token_hex(4)}", settings)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()
