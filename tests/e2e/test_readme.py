"""The README's examples of the API run as they are printed, and are answered as it says."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.stack import ROOT, Stack
from tests.conftest import absent
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

BLOCKS = re.compile(r"```(sh|json)\n(.*?)```", re.DOTALL)


@pytest.fixture
def stack(server_folder: Path) -> Iterator[Stack]:
    """What `make up` starts."""
    stack = Stack(server_folder / "readme", secret_key="r" * 32)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        stack.postgres.remove()


def examples() -> list[tuple[str, str]]:
    """Give each command of the section about the API with the answer that is printed below it."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## The API") : text.index("## Write a message")]
    blocks = BLOCKS.findall(section)
    return [(code, answer) for (_, code), (_, answer) in zip(blocks[::2], blocks[1::2], strict=True)]


def documents(text: str) -> list[Any]:
    """Read JSON documents that follow each other, without what is new each time."""
    found = []
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append({name: value for name, value in document.items() if name != "created_at"})
        text = text[end:]
    return found


def test_every_example_is_answered_as_it_is_printed(stack: Stack) -> None:
    bash = shutil.which("bash")
    if bash is None or shutil.which("curl") is None:
        absent("no curl or no bash on the PATH")
    # `make up` takes other ports where these are taken, and says so; the rest is run as it stands.
    places = {
        "http://127.0.0.1:8080": stack.api_url,
        ".outbox/mails": str(stack.mails.folder),
        ".venv/bin/python": sys.executable,
    }
    answered = []

    for number, (code, _) in enumerate(examples()):
        for printed, here in places.items():
            code = code.replace(printed, here)  # noqa: PLW2901
        if "MailFolder" in code:
            wait_until(stack.mails.mails, 30, "a mail")
        done = subprocess.run([bash, "-euc", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        answered.append(documents(done.stdout))
        assert answered[-1], f"example {number} printed nothing: {done.stderr}"

    assert answered == [documents(answer) for _, answer in examples()]
    assert len(answered) == 5
