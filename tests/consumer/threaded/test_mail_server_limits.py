"""A mail server with limits gets every mail once, and the limits spend no attempt."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded.programs.ports import LOOPBACK
from embedded.programs.program import Program
from tests.consumer.threaded.service import Service, said
from tests.programs.preloading import Preloaded
from tests.programs.processes import started
from tests.rows import add_message
from tests.servers.scripted_mail_server import GREETING, HANG_UP, Answer, ScriptedMailServer, Session
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

ATTEMPTS = "SELECT status, attempt, failures = '[]', count(*) FROM outbox_messages GROUP BY 1, 2, 3"


def three_at_once(session: Session) -> str:
    return f"421 4.7.0 too many connections {HANG_UP}" if session.place > 3 else "220 scripted"


LIMITS: dict[str, Answer] = {
    GREETING: three_at_once,
    "DATA": lambda session: "452 4.4.5 too many mails" if session.mails >= 5 else "354 go on",
}


@contextmanager
def relay(service: Service, origin: Preloaded, folder: Path) -> Iterator[Program]:
    argv = [sys.executable, "-m", "outbox_relay"]
    with started(argv, service.settings, folder / "relay.log", origin) as program:
        yield program


def add(service: Service, count: int) -> None:
    for _ in range(count):
        add_message(service.connection)


def all_done(service: Service) -> bool:
    return service.connection.execute("SELECT FROM outbox LIMIT 1").fetchone() is None


def outcomes(service: Service) -> list[tuple[str, int, bool, int]]:
    return service.connection.execute(ATTEMPTS).fetchall()


def test_limits_of_sessions_and_connections_spend_no_attempt_of_one_worker(
    service: Service, origin: Preloaded, tmp_path: Path
) -> None:
    with ScriptedMailServer(LIMITS) as server:
        worker = service.start(SMTP_URL=f"smtp://{LOOPBACK}:{server.port}")
        add(service, 100)
        with relay(service, origin, tmp_path):
            wait_until(lambda: all_done(service), 60, "all messages to be done")
        wait_until(lambda: not server.sessions, 10, "the idle connections to be given back")

    assert outcomes(service) == [("done", 1, True, 100)]
    assert len(server.accepted) == 100
    assert said(worker, "destination.unavailable") == []


def test_several_workers_share_a_limit_of_connections(service: Service, origin: Preloaded, tmp_path: Path) -> None:
    with ScriptedMailServer({GREETING: three_at_once}) as server:
        workers = [service.start(SMTP_URL=f"smtp://{LOOPBACK}:{server.port}") for _ in range(3)]
        add(service, 150)
        with relay(service, origin, tmp_path):
            wait_until(lambda: all_done(service), 60, "all messages to be done")

    assert outcomes(service) == [("done", 1, True, 150)]
    assert len(server.accepted) == 150
    assert len(workers) == 3
