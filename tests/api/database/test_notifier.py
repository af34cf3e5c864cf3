import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog

from api.database.notifier import Notifier
from embedded.servers.postgres import PostgresServer
from shared.outbox.messages import NOTIFY_CHANNEL
from tests.programs.api_service import api_service
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
# Nothing listens there: port 1 is reserved.
NOBODY = "postgresql://nobody@127.0.0.1:1/none"


@contextmanager
def listening(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"LISTEN {NOTIFY_CHANNEL}")
        yield connection


@pytest.fixture
def listener(database_url: str) -> Iterator[psycopg.Connection]:
    with listening(database_url) as connection:
        yield connection


@pytest.fixture
def notifier(database_url: str) -> Iterator[Notifier]:
    notifier = Notifier(database_url)
    yield notifier
    notifier.close()


def notifications(listener: psycopg.Connection, *, seconds: float = 20.0, at_most: int | None = 1) -> int:
    return len(list(listener.notifies(timeout=seconds, stop_after=at_most)))


def notifier_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "notifier"]


def test_signup_verification_and_resend_each_notify(database_url: str, listener: psycopg.Connection) -> None:
    with api_service(database_url) as api:
        api.sign_up()
        received = [notifications(listener)]
        api.client().post("/v1/verify_email/resend", json={"email": "alice@example.com"})
        received.append(notifications(listener))
        api.client().post(api.link(api.record()))
        received.append(notifications(listener))

    assert received == [1, 1, 1]


def test_refused_signup_does_not_notify(database_url: str, listener: psycopg.Connection) -> None:
    with api_service(database_url) as api:
        api.sign_up()
        notifications(listener)
        api.sign_up()

        assert notifications(listener, seconds=0.3) == 0


def test_notification_comes_after_the_commit(database_url: str, listener: psycopg.Connection) -> None:
    with api_service(database_url) as api:
        api.sign_up()
        notifications(listener)

        assert len(api.messages()) == 1


def test_many_requests_at_once_become_few_notifications_and_the_last_arrives(
    notifier: Notifier, listener: psycopg.Connection
) -> None:
    before = time.monotonic()
    for _ in range(20_000):
        notifier.notify()
    milliseconds = (time.monotonic() - before) * 1000
    received = notifications(listener, seconds=0.5, at_most=None)
    notifier.notify()

    assert 1 <= received <= milliseconds / 2 + 2
    assert notifications(listener) == 1


def test_nothing_is_started_before_the_first_notify(database_url: str) -> None:
    with api_service(database_url) as api:
        api.client().get("/readyz")

        assert notifier_threads() == []


def test_closing_leaves_neither_thread_nor_connection(database_url: str, listener: psycopg.Connection) -> None:
    with api_service(database_url) as api:
        api.sign_up()
        notifications(listener)

    def connections() -> list[tuple[Any, ...]]:
        return listener.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox-api'").fetchall()

    assert notifier_threads() == []
    wait_until(lambda: not connections(), 5, "the end of the API's connections")


def test_signup_succeeds_where_the_notifier_reaches_no_server(database_url: str) -> None:
    with api_service(database_url, notifier=Notifier(NOBODY)) as api:
        responses = [api.sign_up(username=f"user_{number}", email=f"{number}@example.com") for number in range(5)]

        assert [response.status_code for response in responses] == [201] * 5
        assert len(api.messages()) == 5


def test_notify_does_not_wait_for_postgresql() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = Notifier(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none")
        before = time.monotonic()
        for _ in range(1000):
            notifier.notify()
        took = time.monotonic() - before
    notifier.close()

    assert took < 2


def test_outage_is_logged_once() -> None:
    notifier = Notifier(NOBODY)
    with structlog.testing.capture_logs() as logs:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            notifier.notify()
            time.sleep(0.01)
        notifier.close()

    assert [line["event"] for line in logs] == ["notify.failed"]


def test_notifier_works_again_after_a_restart_of_postgresql(own_postgres: PostgresServer) -> None:
    url = own_postgres.url("outbox")
    with api_service(url) as api:
        with listening(url) as listener:
            api.sign_up()
            received = [notifications(listener)]
        own_postgres.restart("immediate")
        with listening(url) as listener:
            api.sign_up(username="bob", email="bob@example.com")
            received.append(notifications(listener))

    assert received == [1, 1]


def test_notifier_works_in_a_forked_process_too(database_url: str, listener: psycopg.Connection) -> None:
    code = (
        "import os, sys, time\n"
        "from api.database.notifier import Notifier\n"
        "notifier = Notifier(sys.argv[1])\n"
        "notifier.notify()\n"
        "sys.stdin.readline()\n"
        "if os.fork() == 0:\n"
        "    notifier.notify()\n"
        "    sys.stdin.readline()\n"
        "    notifier.close()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "notifier.close()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, database_url], cwd=ROOT, stdin=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        received = [notifications(listener)]
        process.stdin.write("fork\n")
        process.stdin.flush()
        received.append(notifications(listener))
        process.stdin.write("end\n")

    assert received == [1, 1]
    assert process.returncode == 0
