"""The API's connections: over IPv4 and IPv6, kept for the next request, and cheap while idle."""

import re
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

import httpx
import pytest

from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded
from tests.waiting import wait_until

# Nothing listens there: no request here needs PostgreSQL.
NOWHERE = "postgresql://x@127.0.0.1:1/x"
ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def has_ipv6() -> bool:
    """Return whether this machine has an IPv6 address of its own."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "gunicorn.log"


@contextmanager
def one_process(origin: Preloaded, log: Path, **settings: str) -> Iterator[tuple[str, int]]:
    """Run the API in one process with its four threads, and return its address."""
    with gunicorn(origin, NOWHERE, log, WEB_CONCURRENCY="1", **settings) as client:
        client.close()
        yield "127.0.0.1", client.base_url.port or 0


def seconds_to_answer(server: tuple[str, int]) -> float:
    began = monotonic()
    with socket.create_connection(server, timeout=30) as connection:
        connection.sendall(LAST)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    return monotonic() - began


def workers(log: Path) -> list[int]:
    """Return the numbers of the processes that gunicorn has started."""
    return [int(number) for number in re.findall(r"Booting worker with pid: (\d+)", log.read_text())]


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server has closed it."""
    connection.settimeout(0)
    try:
        return connection.recv(1 << 16) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_answers_over_ipv4_and_ipv6_and_names_clients_the_same(api_origin: Preloaded, log: Path) -> None:
    with one_process(api_origin, log) as (_, port):
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/v1/nowhere").status_code == 404

    lines = log.read_text()
    assert ' 127.0.0.1 "GET /v1/nowhere" 404' in lines
    assert ' ::1 "GET /v1/nowhere" 404' in lines
    assert "::ffff:" not in lines


def test_connections_over_which_nothing_comes_hold_no_thread(api_origin: Preloaded, log: Path) -> None:
    with one_process(api_origin, log) as server, ExitStack() as open_ones:
        for _ in range(10):
            kept = open_ones.enter_context(socket.create_connection(server))
            kept.sendall(ASK)
            assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        for _ in range(10):
            open_ones.enter_context(socket.create_connection(server))

        assert seconds_to_answer(server) < 2


def test_a_client_that_does_not_close_its_side_delays_no_other(api_origin: Preloaded, log: Path) -> None:
    """gunicorn waits up to two seconds for each of them, in its only thread that accepts."""
    with one_process(api_origin, log) as server, ExitStack() as open_ones:
        for _ in range(10):
            connection = open_ones.enter_context(socket.create_connection(server))
            connection.sendall(LAST)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")

        assert seconds_to_answer(server) < 2


def test_idle_connections_make_room_for_new_ones(api_origin: Preloaded, log: Path) -> None:
    with (
        one_process(api_origin, log, GUNICORN_CMD_ARGS="--worker-connections 10") as server,
        ExitStack() as open_ones,
    ):
        for sent in (b"", ASK) * 10:
            open_ones.enter_context(socket.create_connection(server)).sendall(sent)

        assert seconds_to_answer(server) < 2


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the bounds of another process can be set on Linux alone")
def test_idle_connections_make_room_where_the_process_may_open_no_more_files(api_origin: Preloaded, log: Path) -> None:
    with one_process(api_origin, log) as server, ExitStack() as open_ones:
        [worker] = workers(log)
        seconds_to_answer(server)
        some_more = len(list(Path(f"/proc/{worker}/fd").iterdir())) + 5
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (some_more, some_more))
        for _ in range(20):
            open_ones.enter_context(socket.create_connection(server))

        assert seconds_to_answer(server) < 2
        assert workers(log) == [worker]


def test_connection_is_kept_for_as_long_as_the_setting_says(api_origin: Preloaded, log: Path) -> None:
    with one_process(api_origin, log, KEEPALIVE_SECONDS="2") as server, socket.create_connection(server) as connection:
        connection.sendall(ASK)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        answered = monotonic()

        wait_until(lambda: is_closed(connection), 20, "the end of an idle connection")

        assert 1.9 < monotonic() - answered < 4.9


def test_silent_connections_do_not_hold_up_a_stop(api_origin: Preloaded, log: Path) -> None:
    with ExitStack() as open_ones:
        with one_process(api_origin, log) as server:
            for _ in range(3):
                open_ones.enter_context(socket.create_connection(server))
            seconds_to_answer(server)
            began = monotonic()

        assert monotonic() - began < 8
