"""The examples that the documents print run as they are printed, and are answered as they say.

These are the operations of docs/http-api.md and then, on the same database, the messages of
docs/how-to/append-in-sql.md and docs/operations/messages.md. The commands use the Python of an environment made from
requirements.lock alone.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embedded.servers.postgres_files import binaries
from embedded.stack import ROOT, Stack
from tests.conftest import absent
from tests.programs.locked_environment import make_locked_environment
from tests.programs.preloading import Preloaded
from tests.programs.processes import forked_stack
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

WRITTEN = re.compile(r"(BEGIN|COMMIT|NOTIFY|INSERT \d+ \d+)$")
NEW_EACH_TIME = {"created_at", "signup_token"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def stack(server_folder: Path, origin: Preloaded, api_origin: Preloaded) -> Iterator[Stack]:
    """What `make up` starts."""
    with forked_stack(server_folder / "readme", origin, api_origin) as stack:
        stack.start()
        yield stack


def api_examples() -> list[tuple[str, str]]:
    """Return each command of the document about the API with the answer that is printed below it."""
    blocks = BLOCK.findall((ROOT / "docs/http-api.md").read_text())
    return [(code, answer) for (_, code), (_, answer) in zip(blocks[::2], blocks[1::2], strict=True)]


def message_examples() -> list[tuple[str, str]]:
    """Return each command of the documents about messages with what is printed below it, if anything is."""
    texts = [(ROOT / name).read_text() for name in ("docs/how-to/append-in-sql.md", "docs/operations/messages.md")]
    found = BLOCK.findall("".join(texts))
    return [
        (code, "" if after[0] else after[1]) for (kind, code), after in pairwise([*found, ("sh", "")]) if kind == "sh"
    ]


def documents(text: str) -> list[Any]:
    """Read JSON documents that follow each other, without what is new each time."""
    found = []
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append({name: value for name, value in document.items() if name not in NEW_EACH_TIME})
        text = text[end:]
    return found


def test_every_example_is_answered_as_it_is_printed(stack: Stack, server_folder: Path) -> None:
    bash = shutil.which("bash")
    if bash is None or shutil.which("curl") is None:
        absent("no curl or no bash on the PATH")
    # `make up` takes other ports where these are taken, and says so; the rest is run as it stands.
    places = {
        "http://127.0.0.1:8080": stack.api_url,
        ".outbox/mails": str(stack.mails.folder),
        ".venv/bin/python": str(make_locked_environment(server_folder / "readme-venv") / "python"),
    }
    answered: list[list[Any]] = []

    for number, (code, _) in enumerate(api_examples()):
        for place, here in places.items():
            code = code.replace(place, here)  # noqa: PLW2901
        if "MailFolder" in code:
            wait_until(stack.mails.mails, 30, "a mail")
        done = subprocess.run([bash, "-euc", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        answered.append(documents(done.stdout))
        assert answered[-1], f"example {number} printed nothing: {done.stderr}"

    assert answered == [documents(answer) for _, answer in api_examples()]
    assert len(answered) == 5

    environment = {**os.environ, "PATH": f"{binaries()}:{os.environ['PATH']}", "DATABASE_URL": stack.database_url}
    printed = [
        show(stack, [bash, "-euc", re.sub(r"export DATABASE_URL=\S+", "", code)], environment, places)
        for code, _ in message_examples()
    ]
    assert [words(text) for text in printed if text] == [words(answer) for _, answer in message_examples() if answer]
    shutil.rmtree(server_folder / "readme-venv")


def show(stack: Stack, argv: list[str], environment: dict[str, str], places: dict[str, str]) -> str:
    """Run a command as it is printed, up to its `sleep`, wait for what it waits for, and run the rest."""
    *options, code = argv
    code = code.replace(".venv/bin/python", places[".venv/bin/python"])
    shown = ""
    for part in code.split("sleep 2\n"):
        done = subprocess.run(
            [*options, part], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        shown += "".join(line for line in done.stdout.splitlines(keepends=True) if not WRITTEN.match(line))
        wait_until(lambda: not waiting(stack), 30, "nothing to be under way")
    return shown


def waiting(stack: Stack) -> bool:
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM outbox WHERE status <> 'dead'").fetchone()
    return row != (0,)


def words(text: str) -> list[str]:
    """Return what is said, without the width of a table and the time."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|─+|-{4,}[-+]*|\(\d rows\)", " ", text).split()
