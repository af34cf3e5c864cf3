import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import structlog

from api.database.notifier import Doorbell
from embedded.servers.postgres import PostgresServer
from shared.outbox.messages import DOORBELL_CHANNEL
from tests.api_service import api_service
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
# Nobody listens there: port 1 is reserved.
NOBODY = "postgresql://nobody@127.0.0.1:1/none"


@contextmanager
def listening(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"LISTEN {DOORBELL_CHANNEL}")
        yield connection


@pytest.fixture
def listener(database_url: str) -> Iterator[psycopg.Connection]:
    with listening(database_url) as connection:
        yield connection


@pytest.fixture
def doorbell(database_url: str) -> Iterator[Doorbell]:
    bell = Doorbell(database_url)
    yield bell
    bell.close()


def rings(listener: psycopg.Connection, *, seconds: float = 20.0, at_most: int | None = 1) -> int:
    return len(list(listener.notifies(timeout=seconds, stop_after=at_most)))


def ringers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "doorbell"]


def test_signup_verification_and_resend_each_ring(database_url: str, listener: psycopg.Connection) -> None:
    with api_service(database_url) as api:
        api.sign_up()
        heard = [rings(listener)]
        api.client().post("/v1/verify_email/resend", json={"email": "alice@example.com"})
        heard.append(rings(listener))
        api.client().post(api.link(api.record()))
        heard.append(rings(listener))

    assert heard == [1, 1, 1]


def test_refused_signup_does_not_ring(database_url: str, listener: psycopg.Connection) -> None:
    with api_service(database_url) as api:
        api.sign_up()
        rings(listener)
        api.sign_up()

        assert rings(listener, seconds=0.3) == 0


def test_ring_is_heard_after_the_commit(database_url: str, listener: psycopg.Connection) -> None:
    with api_service(database_url) as api:
        api.sign_up()
        rings(listener)

        assert len(api.messages()) == 1


def test_many_rings_at_once_become_few_and_the_last_is_heard(doorbell: Doorbell, listener: psycopg.Connection) -> None:
    before = time.monotonic()
    for _ in range(20_000):
        doorbell.ring()
    milliseconds = (time.monotonic() - before) * 1000
    heard = rings(listener, seconds=0.5, at_most=None)
    doorbell.ring()

    assert 1 <= heard <= milliseconds / 2 + 2
    assert rings(listener) == 1


def test_nothing_is_started_before_the_first_ring(database_url: str) -> None:
    with api_service(database_url) as api:
        api.client().get("/readyz")

        assert ringers() == []


def test_closing_leaves_neither_thread_nor_connection(database_url: str, listener: psycopg.Connection) -> None:
    with api_service(database_url) as api:
        api.sign_up()
        rings(listener)

    def connections() -> list[object]:
        return listener.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox-api'").fetchall()

    assert ringers() == []
    wait_until(lambda: not connections(), 5, "the end of the API's connections")


def test_doorbell_that_nobody_answers_leaves_the_signup_as_it_is(database_url: str) -> None:
    with api_service(database_url, doorbell=Doorbell(NOBODY)) as api:
        responses = [api.sign_up(username=f"user_{number}", email=f"{number}@example.com") for number in range(5)]

        assert [response.status_code for response in responses] == [201] * 5
        assert len(api.messages()) == 5


def test_ring_does_not_wait_for_postgresql() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bell = Doorbell(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none")
        before = time.monotonic()
        for _ in range(1000):
            bell.ring()
        took = time.monotonic() - before
    bell.close()

    assert took < 2


def test_outage_is_logged_once() -> None:
    bell = Doorbell(NOBODY)
    with structlog.testing.capture_logs() as logs:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            bell.ring()
            time.sleep(0.01)
        bell.close()

    assert [line["event"] for line in logs] == ["notify.failed"]


def test_doorbell_rings_again_after_a_restart_of_postgresql(own_postgres: PostgresServer) -> None:
    url = own_postgres.url("outbox")
    with api_service(url) as api:
        with listening(url) as listener:
            api.sign_up()
            heard = [rings(listener)]
        own_postgres.restart("immediate")
        with listening(url) as listener:
            api.sign_up(username="bob", email="bob@example.com")
            heard.append(rings(listener))

    assert heard == [1, 1]


def test_doorbell_rings_in_a_forked_process_too(database_url: str, listener: psycopg.Connection) -> None:
    code = (
        "import os, sys, time\n"
        "from api.database.notifier import Doorbell\n"
        "bell = Doorbell(sys.argv[1])\n"
        "bell.ring()\n"
        "sys.stdin.readline()\n"
        "if os.fork() == 0:\n"
        "    bell.ring()\n"
        "    sys.stdin.readline()\n"
        "    bell.close()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "bell.close()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, database_url], cwd=ROOT, stdin=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        heard = [rings(listener)]
        process.stdin.write("fork\n")
        process.stdin.flush()
        heard.append(rings(listener))
        process.stdin.write("end\n")

    assert heard == [1, 1]
    assert process.returncode == 0
