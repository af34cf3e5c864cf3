"""An outage by policy with an OutboxWorker and a relay."""

import threading
from collections import Counter

import pytest

from embedded.programs.ports import LOOPBACK
from shared.outbox.messages import SendWelcomeEmail
from tests.consumer.threaded.relaying import running_relay
from tests.consumer.threaded.service import WAIT, Service, said
from tests.rows import add_message, add_user
from tests.servers.scripted_mail_server import ScriptedMailServer
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

MESSAGES = 40


def test_refusing_every_recipient_makes_no_dead_letter_and_all_are_mailed_afterwards(service: Service) -> None:
    refuses = threading.Event()
    refuses.set()
    for number in range(MESSAGES):
        name = add_user(service.connection, f"user{number}", email=f"user{number}@{'abc'[number % 3]}.example")
        queue = ("critical", "default")[number % 2]
        add_message(service.connection, SendWelcomeEmail.task, {"username": name}, queue, max_retries=number % 2)

    def outages() -> int:
        [(count,)] = service.connection.execute("SELECT coalesce(max(outages), 0) FROM outbox_destinations").fetchall()
        return int(count)

    denied = {"RCPT": lambda _: "554 5.7.1 Relay access denied" if refuses.is_set() else "250 OK"}
    with ScriptedMailServer(denied) as server, running_relay(service):
        worker = service.start(SMTP_URL=f"smtp://{LOOPBACK}:{server.port}", OUTBOX_BACKOFF_SCALE="0.02")
        wait_until(lambda: outages() >= 6, WAIT, "five probes that are refused")
        rows = service.connection.execute("SELECT status, attempt FROM outbox WHERE status <> 'running'").fetchall()
        assert Counter(rows) <= Counter({("pending", 0): MESSAGES, ("published", 0): MESSAGES})
        refuses.clear()

        wait_until(lambda: len(server.accepted) == MESSAGES, WAIT, "all mails")
        finished = "SELECT status, attempt, count(*) FROM outbox_messages GROUP BY 1, 2"
        wait_until(
            lambda: service.connection.execute(finished).fetchall() == [("done", 1, MESSAGES)], WAIT, "all to be done"
        )
    assert len(set(server.accepted)) == MESSAGES
    [outage] = said(worker, "destination.unavailable")
    assert (outage["level"], outage["code"]) == ("error", "5.7.1")
