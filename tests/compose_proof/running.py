"""The project, run by Compose as its documents say."""

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from embedded.stack import ROOT
from tests.compose_proof.engine import Engine
from tests.waiting import wait_until

API = "http://127.0.0.1:8080"
MAILBOX = "http://127.0.0.1:8025"
PROJECT = "proof"

_FROM_CACHE = "\n".join(
    ["services:", *(f"  {name}: {{build: {{network: host}}}}" for name in ("schema", "api", "relay", "worker")), ""]
)


class Composed:
    """The services of compose.yaml in the engine."""

    def __init__(self, engine: Engine, project: Path) -> None:
        self.engine = engine
        self.project = project
        # The engine's network leads nowhere: the layer with the packages has to come out of the cache, whose key holds
        # the network that it was built in.
        override = engine.folder / "from-cache.yaml"
        override.write_text(_FROM_CACHE)
        self.variables = {
            "COMPOSE_FILE": f"{project / 'compose.yaml'}:{override}",
            "COMPOSE_PROJECT_NAME": PROJECT,
        }

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker compose`."""
        return self.engine.docker("compose", *arguments, check=check, folder=self.project, variables=self.variables)

    def start(self, lines: str) -> subprocess.Popen[str]:
        """Start lines of the documents as they are printed."""
        return subprocess.Popen(
            ["bash", "-euc", lines],
            cwd=self.project,
            env={**self.engine.environment, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def shell(self, lines: str) -> None:
        """Run lines of the documents as they are printed, and fail with what they said and logged if they fail."""
        with self.start(lines) as process:
            said, _ = process.communicate()
        if process.returncode != 0:
            raise AssertionError(f"{lines}\n{said}{self.compose('logs', '--tail=20', check=False).stdout}")

    def sql(self, statement: str) -> str:
        """Return what psql prints, unaligned."""
        psql = ["psql", "--username=outbox", "--dbname=outbox", "-qAt", f"--command={statement}"]
        return self.compose("exec", "-T", "postgres", *psql).stdout.strip()

    def containers(self) -> list[dict[str, Any]]:
        """Return all containers of the project as Compose describes them."""
        lines = self.compose("ps", "--all", "--format=json").stdout.splitlines()
        return [json.loads(line) for line in lines]

    def sign_up(self, username: str, timeout_seconds: float = 30) -> None:
        """Sign somebody up, and repeat it while the service is away, as a client does."""
        body = {
            "username": username,
            "full_name": "Ada Lovelace",
            "email": f"{username}@example.com",
            "password": "correct horse",
        }
        deadline = time.monotonic() + timeout_seconds
        answer = "nothing"
        with self.engine.network():
            while time.monotonic() < deadline:
                try:
                    response = httpx.post(f"{API}/v1/users", json=body, timeout=10)
                except httpx.TransportError as exc:
                    answer = repr(exc)
                else:
                    # 200: an earlier try was committed and its answer lost.
                    if response.status_code in {200, 201}:
                        return
                    answer = response.text
                time.sleep(0.2)
        raise AssertionError(f"{username} could not sign up: {answer}")

    def recipients(self) -> list[str]:
        """Return whom the mails went to."""
        with self.engine.network():
            page = httpx.get(f"{MAILBOX}/api/v1/messages", timeout=10).json()
        return sorted(to["Address"] for message in page["messages"] for to in message["To"])

    def wait_for_mails(self, *usernames: str) -> None:
        """Wait until exactly these have been mailed."""
        expected = sorted(f"{username}@example.com" for username in usernames)
        wait_until(lambda: set(expected) <= set(self.recipients()), 120, f"mails to {usernames}")


def printed(document: str, section: str) -> str:
    """Return the lines that a section of a document asks its reader to type."""
    text = (ROOT / document).read_text()
    start = text.index(f"\n{section}\n")
    level = section.partition(" ")[0]
    end = re.compile(rf"(?m)^#{{1,{len(level)}}} ").search(text, start + len(section) + 2)
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", text[start : end.start() if end else None])
    assert blocks, f"{document}, {section}: no commands"
    return "".join(blocks)
