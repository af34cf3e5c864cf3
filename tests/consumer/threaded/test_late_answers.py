"""Late answers of the mail server occupy some senders of an OutboxWorker and do not disturb the others."""

import os
import signal
import threading
from time import monotonic

import pytest
from psycopg.types.json import Jsonb

from embedded.programs.ports import LOOPBACK
from tests.consumer.threaded.service import WAIT, Service, said
from tests.programs.processes import publish
from tests.rows import add_message
from tests.servers.scripted_mail_server import CONTENT, ScriptedMailServer, Session
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

SILENCE = Jsonb([{"attempt": 1, "reason": "silence", "maybe_accepted": True, "unanswered": True}])


def publish_silent(service: Service, count: int) -> list[int]:
    """Publish messages whose earlier attempt got no answer."""
    ids = [add_message(service.connection, failures=SILENCE, attempt=1) for _ in range(count)]
    assert publish(service.connection, service.redis_url) == count
    return ids


def test_half_of_the_senders_wait_and_the_others_send(service: Service) -> None:
    answers = threading.Event()
    unanswered: list[Session] = []

    def answer(session: Session) -> str:
        if len(unanswered) < 2:
            unanswered.append(session)
            answers.wait(WAIT)
        return "250 OK"

    with ScriptedMailServer({CONTENT: answer}) as server:
        worker = service.start(
            SMTP_URL=f"smtp://{LOOPBACK}:{server.port}", OUTBOX_RUN_LEASE_SECONDS="1.5", WORKER_CONCURRENCY="4"
        )
        waiting = publish_silent(service, 2)
        wait_until(lambda: len(unanswered) == 2, WAIT, "two mails without an answer")
        [without_a_place] = publish_silent(service, 1)
        service.wait_for_done(service.publish(6))
        wait_until(lambda: service.status(without_a_place) == "pending", WAIT, "it to be released")
        # A thread that works on a mail for longer than a lease and five seconds would count as stuck.
        wait_until(lambda: len(said(worker, "lease.renewed")) >= 14, WAIT, "both leases to be renewed seven times")
        assert [service.status(id_) for id_ in waiting] == ["running"] * 2
        answers.set()

        service.wait_for_done(waiting)
        assert said(worker, "thread.stuck") == []


def test_a_worker_that_is_told_to_stop_waits_only_for_its_present_lease(service: Service) -> None:
    with ScriptedMailServer(
        {CONTENT: lambda session: str(session.server.is_stopping.wait(WAIT)) and "250 OK"}
    ) as server:
        worker = service.start(SMTP_URL=f"smtp://{LOOPBACK}:{server.port}", OUTBOX_RUN_LEASE_SECONDS="3")
        [id_] = publish_silent(service, 1)
        wait_until(lambda: said(worker, "lease.renewed"), WAIT, "the lease to be renewed")
        told_at = monotonic()
        os.kill(worker.pid, signal.SIGTERM)

        wait_until(lambda: not worker.running, WAIT, "the worker to end")

    assert monotonic() - told_at < 3.0
    assert (worker.exit_code, service.status(id_)) == (0, "pending")
