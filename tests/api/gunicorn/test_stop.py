"""Stopping the API: connected clients get a response, and later ones are refused at once."""

import socket
import threading
from pathlib import Path

from embedded.programs.ports import free_port
from tests.programs.api_service import KEY
from tests.programs.gunicorn import END_SECONDS, gunicorn_program
from tests.programs.preloading import Preloaded
from tests.waiting import wait_until

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_connections_that_wait_to_be_accepted_are_answered_before_a_stop(api_origin: Preloaded, tmp_path: Path) -> None:
    """gunicorn's own worker resets them: they are in the kernel's queue when it closes its socket."""
    port = free_port()
    settings = {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "SECRET_KEY": KEY, "PORT": str(port)}
    program = gunicorn_program(api_origin, tmp_path / "gunicorn.log", WEB_CONCURRENCY="1", **settings)
    program.start()
    outcomes: list[str] = []

    def ask() -> None:
        while "refused" not in outcomes:
            outcomes.append(outcome(port))

    try:
        wait_until(lambda: outcome(port) == "answered", 20, "the API")
        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        wait_until(lambda: len(outcomes) > 100, 20, "requests")
    finally:
        exit_code = program.stop(END_SECONDS)
    for client in clients:
        client.join()

    assert exit_code == 0
    assert set(outcomes) == {"answered", "refused"}


def outcome(port: int) -> str:
    """Return the outcome of a request on its own connection."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=END_SECONDS) as connection:
            connection.sendall(REQUEST)
            answer = connection.recv(1 << 16)
    except ConnectionRefusedError:
        return "refused"
    except OSError as exc:
        return type(exc).__name__
    return "answered" if answer.startswith(b"HTTP/1.1 200") else f"cut off after {answer!r}"
