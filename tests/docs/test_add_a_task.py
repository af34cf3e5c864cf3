"""docs/how-to/add-a-task.md is followed as it is written, in a folder outside the project."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.mail.catcher import MailCatcher
from shared.database.connections import DbConnection, connect
from tests.programs.processes import OUTBOX_WORKER, ROOT, worker_settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

STOCK_CLASS = "rq.worker.Worker"


def blocks(kind: str) -> list[str]:
    text = (ROOT / "docs" / "how-to" / "add-a-task.md").read_text()
    return re.findall(rf"(?ms)^```{kind}\n(.*?)^```", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder /srv/shop of the document."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "tasks.py").write_text(blocks("python")[0])
    text, html = blocks("jinja")
    (package / "password_changed.txt").write_text(text)
    (package / "password_changed.html").write_text(html)
    return tmp_path


@pytest.fixture
def connection(database_url: str) -> Iterator[DbConnection]:
    with connect(database_url, "test") as opened:
        opened.execute(
            "INSERT INTO users (username, email, full_name, hashed_password)"
            " VALUES ('ada', 'ada@example.com', 'Ada Lovelace', '!')"
        )
        yield opened


@pytest.mark.parametrize("worker_class", [OUTBOX_WORKER, STOCK_CLASS])
def test_a_task_is_added_as_it_is_described(
    folder: Path, connection: DbConnection, database_url: str, redis_url: str, mailbox: MailCatcher, worker_class: str
) -> None:
    table, insert = blocks("sql")
    use = blocks("python")[1].replace('folder="/tmp"', f'folder="{folder}"')
    use = re.sub(r"postgresql\+psycopg://[^\"]+", database_url.replace("postgresql://", "postgresql+psycopg://"), use)
    variables = dict(re.findall(r"(?m)^export (\w+)=(\S+)$", blocks("sh")[0]))
    settings = {
        **worker_settings(database_url, redis_url, mailbox.smtp_url),
        **variables,
        "PYTHONPATH": variables["PYTHONPATH"].replace("/srv/shop", str(folder)),
        "RQ_WORKER_CLASS": worker_class,
    }

    connection.execute(table.encode())
    run(folder, settings, sys.executable, "-c", use, PYTHONPATH=f"{folder}:{ROOT}")
    connection.execute(insert.encode())
    for _ in range(2):  # the receipt appends a message
        run(ROOT, settings, sys.executable, "-m", "outbox_relay", "--once")
        run(ROOT, settings, str(Path(sys.executable).with_name("rq")), "worker", "--burst", "critical", "default")

    [mail] = mailbox.mails()
    assert (mail.recipients, mail.subject) == (("ada@example.com",), "Your password was changed")
    assert "Hello Ada Lovelace" in mail.text
    [receipt] = folder.glob("*.txt")
    assert receipt.read_text() == "ada: 12.50\n"
    assert connection.execute("SELECT username, points FROM shop_points").fetchall() == [("ada", 42)]
    assert connection.execute("SELECT status, count(*) FROM outbox_messages GROUP BY 1").fetchall() == [("done", 4)]


def run(folder: Path, settings: dict[str, str], *argv: str, **others: str) -> None:
    done = subprocess.run(
        argv, cwd=folder, env={**settings, **others}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
