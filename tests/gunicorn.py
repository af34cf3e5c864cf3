"""The API as it is run: gunicorn with the project's own configuration."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from embedded.ports import free_port
from tests.api_service import KEY
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "gunicorn", "api:create_app()"]


@contextmanager
def gunicorn(database_url: str, log: Path, **settings: str) -> Iterator[httpx.Client]:
    """Run it with these settings and its output in the file, and give a client for it."""
    port = free_port()
    environment = {**os.environ, "DATABASE_URL": database_url, "SECRET_KEY": KEY, "PORT": str(port), **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(COMMAND, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

            def answers() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return client.get("/healthz").is_success
                except httpx.TransportError:
                    return False

            wait_until(answers, 20, f"an answer of gunicorn; its log is {log}")
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)
