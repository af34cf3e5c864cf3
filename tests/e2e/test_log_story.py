"""One grep over the logs of all processes finds the events of a message."""

import re
import sys
from pathlib import Path

import pytest
from redis import Redis

from embedded.mail.catcher import MailCatcher
from embedded.programs.program import Program
from shared.database.connections import connect
from tests.programs.api_service import ALICE
from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded
from tests.programs.processes import OUTBOX_WORKER, started, worker_module, worker_settings
from tests.rows import message
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


def grep(message_id: int, *logs: Path) -> list[str]:
    """Return the events of the lines in which the number stands as a word."""
    lines = [line for log in logs for line in log.read_text().splitlines() if re.search(rf"\b{message_id}\b", line)]
    return [event[1] for line in lines if (event := re.search(r'"event": "([^"]+)"', line))]


def log_of(program: Program) -> Path:
    return program.command.log_file


def test_a_grep_for_a_message_id_finds_its_events(
    api_origin: Preloaded,
    origin: Preloaded,
    database_url: str,
    emptiable_redis_url: str,
    mailbox: MailCatcher,
    tmp_path: Path,
) -> None:
    settings = worker_settings(database_url, emptiable_redis_url, mailbox.smtp_url)
    api_log = tmp_path / "api.log"
    with connect(database_url, "test") as connection:
        connection.execute("ALTER TABLE outbox ALTER COLUMN id RESTART WITH 424242")
        with (
            gunicorn(api_origin, database_url, api_log) as client,
            started([sys.executable, "-m", "outbox_relay"], settings, tmp_path / "relay.log", origin) as relay,
        ):
            assert client.post("/v1/users", json=ALICE).status_code == 201
            wait_until(lambda: "messages.published" in grep(424242, log_of(relay)), 20, "the push")
            with Redis.from_url(emptiable_redis_url) as redis:
                redis.flushall()
            wait_until(lambda: grep(424242, log_of(relay)).count("messages.published") > 1, 20, "the second push")
            with started(
                worker_module(), {**settings, "RQ_WORKER_CLASS": OUTBOX_WORKER}, tmp_path / "worker.log", origin
            ) as worker:
                wait_until(lambda: message(connection, 424242)["status"] == "done", 20, "the mail")
                wait_until(lambda: grep(424242, log_of(worker)), 5, "the worker's line")

    assert grep(424242, api_log, log_of(relay), log_of(worker)) == [
        "user.signed_up",
        "messages.published",
        "messages.returned",
        "messages.published",
        "message.delivered",
    ]
