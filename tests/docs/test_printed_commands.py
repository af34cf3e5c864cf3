"""The commands that README and docs print run as they are printed, where nothing but requirements.lock is installed.

The examples of the API and of messages are those of tests/docs/test_printed_examples.py. What needs an engine, root or
a registry is listed with what covers it, so that nobody misses a new command.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import free_port
from embedded.programs.program import Command, Program
from embedded.servers.postgres_files import binaries
from shared.database.connections import connect
from tests.programs.locked_environment import make_locked_environment
from tests.programs.processes import ROOT, events, worker_settings
from tests.settings.database_defaults import set_foreign_settings
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
HEREDOC = re.compile(r"<<'SQL'\n.*?\nSQL", re.DOTALL)
RUN_HERE = {
    'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f schema.sql',
    'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f docs/roles.sql',
    ".venv/bin/gunicorn 'api:create_app()'",
    ".venv/bin/python -m outbox_relay",
    ".venv/bin/rq worker critical default",
    "alembic current",
    "alembic upgrade head",
    'alembic revision -m "what changes" --rev-id 0002_what_changes',
}
ELSEWHERE = {
    r"make ": "Makefile; tests/embedded/test_commands.py and tests/bench/test_bench.py run what it calls",
    r"curl |link=|print\(MailFolder": "tests/docs/test_printed_examples.py",
    r'psql "\$DATABASE_URL" (<<|-c )|sleep 2|\.venv/bin/python -m outbox_relay (dead|discard|retry)': (
        "tests/docs/test_printed_examples.py"
    ),
    r"python3 -m venv|(\.venv/bin/)?pip install": "tests/programs/locked_environment.py stands for them",
    r"\[ -e \.env \]|docker |deploy/compose/": "tests/deploy/test_compose.py; make compose-proof",
    r"kubectl ": "tests/deploy/test_kubernetes.py",
    r"systemctl |install |for process in|done$": "tests/deploy/test_systemd.py",
    r"(RQ_WORKER_CLASS=\S+ )?\.venv/bin/rq (worker|info)|\.venv/bin/python -m outbox_relay doctor": (
        "tests/redis_client/test_sentinel.py"
    ),
    r'psql "\$DATABASE_URL" -v ON_ERROR_STOP=1 -f migrations/from_0023.sql': "tests/schema/test_from_0023.py",
    r'psql "\$TEST_DATABASE_URL"': "tests/docs/test_test_your_tasks.py",
    r"python -m outbox_relay webhooks |WEBHOOK_SECRET=": "tests/docs/test_receive_webhooks.py",
    r"git checkout ": "the history, by hand",
    r"export |[A-Z_]+=\S+$": "the settings of the commands beside it",
}


def printed_commands() -> list[str]:
    """Return each command of README and docs, on one line and without its comment."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [block for file in files for block in BLOCK.findall(file.read_text())]
    joined = [HEREDOC.sub("<<SQL", block).replace("\\\n", " ") for block in blocks]
    lines = [line.strip() for block in joined for line in block.splitlines() if line.strip()]
    return [re.split(r"\s{2,}# |\s+#\s", line)[0].strip() for line in lines]


def test_every_printed_command_is_run_somewhere() -> None:
    commands = printed_commands()

    assert set(commands) >= RUN_HERE
    assert [each for each in commands if each not in RUN_HERE and not is_run_elsewhere(each)] == []


def is_run_elsewhere(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in ELSEWHERE)


@pytest.fixture(scope="module")
def checkout(server_folder: Path) -> Iterator[Path]:
    """The project as it is cloned, with an environment of its own in .venv."""
    folder = server_folder / "checkout"
    shutil.copytree(
        ROOT, folder, ignore=lambda _, names: [name for name in names if name.startswith(".") or name == "__pycache__"]
    )
    make_locked_environment(folder / ".venv")
    yield folder
    shutil.rmtree(folder)


def environment(checkout: Path, **settings: str) -> dict[str, str]:
    path = f"{checkout / '.venv' / 'bin'}:{binaries()}:/usr/bin:/bin"
    return {"PATH": path, "LANG": "C.UTF-8", "RQ_KEY_PREFIX": os.environ.get("RQ_KEY_PREFIX", "rq"), **settings}


def run(checkout: Path, line: str, **settings: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-euc", line],
        cwd=checkout,
        env=environment(checkout, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_the_project_is_not_installed_there(checkout: Path) -> None:
    with pytest.raises(AssertionError, match="No module named 'shared'"):
        run(checkout, "cd / && python -c 'import shared'")


def test_the_migrations(checkout: Path, empty_database_url: str) -> None:
    set_foreign_settings(empty_database_url)
    versions = checkout / "migrations" / "versions"
    run(checkout, "alembic upgrade head", DATABASE_URL=empty_database_url)

    head = max(file.stem for file in versions.glob("*.py"))
    assert f"{head} (head)" in run(checkout, "alembic current", DATABASE_URL=empty_database_url)
    run(checkout, 'alembic revision -m "what changes" --rev-id 0002_what_changes', DATABASE_URL=empty_database_url)
    new = versions / "0002_what_changes.py"
    assert f'revision = "0002_what_changes"\ndown_revision = "{head}"\n' in new.read_text().replace("'", '"')
    new.unlink()


@pytest.mark.long
def test_the_service(
    checkout: Path, empty_database_url: str, redis_url: str, mailbox: MailCatcher, tmp_path: Path
) -> None:
    settings = {**worker_settings(empty_database_url, redis_url, mailbox.smtp_url), "PORT": str(free_port())}
    run(checkout, 'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f schema.sql', **settings)
    run(checkout, 'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f docs/roles.sql', **settings)
    set_foreign_settings(empty_database_url)
    programs = [
        Program(
            Command(
                name=name,
                argv=["/bin/sh", "-euc", f"exec {line}"],
                env=environment(checkout, **settings),
                cwd=checkout,
                log_file=tmp_path / f"{name}.log",
            )
        )
        for name, line in {
            "api": ".venv/bin/gunicorn 'api:create_app()'",
            "relay": ".venv/bin/python -m outbox_relay",
            "worker": ".venv/bin/rq worker critical default",
        }.items()
    ]
    try:
        for program in programs:
            program.start()
        request = {"username": "ada", "full_name": "Ada", "email": "ada@example.com", "password": "correct horse"}
        url = f"http://127.0.0.1:{settings['PORT']}"
        wait_until(lambda: is_ready(url), 60, "the API to be ready")
        assert httpx.post(f"{url}/v1/users", json=request, timeout=30).status_code == 201
        wait_until(mailbox.mails, 60, "the mail")
        assert mailbox.mails()[0].recipients[0] == "ada@example.com"
        with connect(empty_database_url, "test") as connection:
            finished = "SELECT count(*) FROM outbox_finished WHERE status = 'done'"
            wait_until(lambda: connection.execute(finished).fetchone() == (1,), 30, "the message to be done")
        assert not [event for program in programs for event in events(program) if event.get("level") == "error"]
    finally:
        for program in programs:
            program.stop(30)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10).is_success
    except httpx.TransportError:
        return False
