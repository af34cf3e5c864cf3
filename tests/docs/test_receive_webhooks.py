"""docs/how-to/receive-webhooks.md is followed as it is written: a signup without a mail server, and its event."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import httpx
import pytest

from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from embedded.stack import Stack
from tests.outbox_relay.commands.running import run
from tests.programs.preloading import Preloaded
from tests.programs.processes import ROOT, events, forked_stack
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SIGNUPS = 3
SECONDS = 1.0
TEXT = (ROOT / "docs" / "how-to" / "receive-webhooks.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"(?ms)^```{kind}\n(.*?)^```", TEXT)


@pytest.fixture
def stack(server_folder: Path, origin: Preloaded, api_origin: Preloaded) -> Iterator[Stack]:
    """Everything runs but the mail server."""
    with forked_stack(server_folder / "webhooks", origin, api_origin) as stack:
        stack.start_postgres()
        stack.redis.start()
        stack.start_api()
        stack.relay.start()
        stack.worker.start()
        yield stack


class Receiver:
    """The document's receiver, as a process of its own."""

    def __init__(self, folder: Path, secret: str, port: int) -> None:
        [source] = blocks("python")
        (folder / "receiver.py").write_text(source)
        command = shlex.split(blocks("sh")[1].partition("=")[2].partition(" ")[2].replace("8090", str(port)))
        assert command[0] == "flask"
        self.log_file = folder / "receiver.log"
        env = {"PATH": "/usr/bin:/bin", "WEBHOOK_SECRET": secret, "PYTHONUNBUFFERED": "1"}
        argv = [sys.executable, "-m", *command]
        self.program = Program(Command(name="receiver", argv=argv, env=env, cwd=folder, log_file=self.log_file))

    def received(self) -> list[tuple[str, dict[str, str]]]:
        """Return the type and the data of each event that was verified."""
        lines = re.findall(r"(?m)^([a-z]+\.[a-z_]+) (\{.*\})$", self.log_file.read_text())
        return [(kind, ast.literal_eval(data)) for kind, data in lines]


def command(number: int, *, port: int) -> list[str]:
    """Return the arguments of a command of the document, for a receiver of this machine."""
    words = shlex.split(blocks("sh")[number])
    assert words[:3] == ["python", "-m", "outbox_relay"]
    return [word.replace("https://shop.example.com", f"http://{LOOPBACK}:{port}") for word in words[3:]]


def sign_up(stack: Stack, username: str) -> None:
    request = {
        "username": username,
        "full_name": "Ada Lovelace",
        "email": f"{username}@example.com",
        "password": "correct horse",
    }
    assert httpx.post(f"{stack.api_url}/v1/users", json=request, timeout=30).status_code == 201


def test_a_signup_s_event_arrives_within_a_second_while_the_mail_server_is_down(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", stack.database_url)
    port = free_port()
    added = run(*command(0, port=port))
    [secret] = re.findall(r"whsec_\S+", added.output)
    receiver = Receiver(tmp_path, secret, port)
    receiver.program.start()
    try:
        wait_until(lambda: "Running on" in receiver.log_file.read_text(), 30, "the receiver")
        tested = run(*command(2, port=port))
        assert tested.exit_code == 0, tested.output
        assert [kind for kind, _ in receiver.received()] == ["webhook.test"]

        seconds = [_seconds_to_event(stack, receiver, f"ada{number}") for number in range(SIGNUPS)]
        print("seconds from the answer to the event:", *(f"{each:.3f}" for each in seconds))  # noqa: T201
        assert min(seconds) < SECONDS

        assert run(*command(3, port=port)).exit_code == 0
        _seconds_to_event(stack, receiver, "both_secrets_sign")
    finally:
        receiver.program.stop()
    assert stack.mails.names() == []
    unavailable = [each["destination"] for each in events(stack.worker) if each["event"] == "destination.unavailable"]
    assert unavailable == ["mail"]


def _seconds_to_event(stack: Stack, receiver: Receiver, username: str) -> float:
    """Sign up, and return how long after the answer the event was there."""
    sign_up(stack, username)
    began = monotonic()
    wait_until(
        lambda: ("user.signed_up", username) in [(kind, data.get("username")) for kind, data in receiver.received()],
        30,
        "the event",
    )
    return monotonic() - began
