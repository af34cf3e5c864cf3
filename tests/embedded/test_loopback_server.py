"""A server's port: chosen at the first start, and another one if that was taken meanwhile."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from embedded.errors import EmbeddedError
from embedded.programs.ports import LOOPBACK
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer

Make = Callable[..., PostgresServer | RedisServer]


@pytest.fixture(params=[PostgresServer, RedisServer])
def make(request: pytest.FixtureRequest, folder: Path) -> Iterator[Make]:
    yield partial(request.param, folder)
    shutil.rmtree(folder)


@contextmanager
def taken(port: int) -> Iterator[int]:
    """Take a port; yields its number. Nothing listens on it, because a client would wait long for an answer."""
    with socket.socket() as other:
        other.bind((LOOPBACK, port))
        yield other.getsockname()[1]


def test_another_port_is_chosen_if_the_first_one_was_taken_meanwhile(make: Make) -> None:
    server = make()
    with taken(server.port) as first:
        try:
            server.start()

            assert server.running
            assert server.port != first
        finally:
            server.stop()


def test_a_given_port_that_is_taken_is_an_error(make: Make) -> None:
    with taken(0) as port:
        server = make(port=port)

        with pytest.raises(EmbeddedError, match="bind"):
            server.start()

        assert not server.running
        assert server.port == port


def test_a_server_that_was_never_started_has_neither_process_nor_exit_code(make: Make) -> None:
    server = make()

    assert not server.running
    assert server.exit_code is None
    with pytest.raises(EmbeddedError, match=f"{server.name} was never started"):
        _ = server.pid
