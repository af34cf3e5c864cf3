"""The API as it is run: gunicorn with the project's own configuration."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from embedded.programs.ports import free_port
from embedded.programs.program import Command, Program
from tests.programs.api_service import KEY
from tests.programs.preloading import Preloaded, PreloadedProgram
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
ARGV = [sys.executable, "-m", "gunicorn", "api:create_app()"]
END_SECONDS = 30.0


def gunicorn_program(origin: Preloaded, log: Path, **settings: str) -> Program:
    """Return the program with these settings and its output in the file; start nothing yet."""
    return PreloadedProgram(Command("gunicorn", ARGV, {**os.environ, **settings}, ROOT, log), origin)


@contextmanager
def gunicorn(origin: Preloaded, database_url: str, log: Path, **settings: str) -> Iterator[httpx.Client]:
    """Run it with these settings and its output in the file, and give a client for it."""
    port = free_port()
    needed = {"DATABASE_URL": database_url, "SECRET_KEY": KEY, "PORT": str(port)}
    program = gunicorn_program(origin, log, **{**needed, **settings})
    program.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

            def answers() -> bool:
                assert program.running, log.read_text()
                try:
                    return client.get("/healthz").is_success
                except httpx.TransportError:
                    return False

            wait_until(answers, 20, f"an answer of gunicorn; its log is {log}")
            yield client
    finally:
        exit_code = program.stop(END_SECONDS)
    assert exit_code == 0, log.read_text()
