"""A Postfix that limits its clients, and one whose disk is full: no mail is lost or sent twice, no attempt spent."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.database.connections import connect
from tests.programs.preloading import Preloaded
from tests.programs.processes import OUTBOX_WORKER
from tests.waiting import wait_until
from tests.world.messages import add_messages, nothing_waits, outcomes
from tests.world.postfix import Postfix
from tests.world.service import Servers, pipeline

MAILS = 500
LIMITS = {
    # Else Postfix never limits a client of its own networks, loopback among them.
    "smtpd_client_event_limit_exceptions": "",
    "smtpd_client_connection_count_limit": "3",
    "smtpd_client_message_rate_limit": "50",
    "anvil_rate_time_unit": "5s",
}
BOTH_LIMITS = ("Connection concurrency limit exceeded", "Message delivery request rate limit exceeded")


@pytest.mark.timeout(300)
def test_limits_of_connections_and_mails_cost_time_alone(
    origin: Preloaded,
    database_url: str,
    redis_url: str,
    start_postfix: Callable[..., Postfix],
    tmp_path: Path,
) -> None:
    postfix = start_postfix(**LIMITS)
    with connect(database_url, "test") as connection:
        addresses = add_messages(connection, MAILS)
        servers = Servers(database_url, redis_url, postfix.smtp_url)
        with pipeline(servers, origin, tmp_path, RQ_WORKER_CLASS=OUTBOX_WORKER):
            wait_until(lambda: nothing_waits(connection), 240, "no message to be unfinished")

        found = outcomes(connection)
    wait_until(lambda: len(postfix.mails()) >= found["done", 1, 0], 30, "Postfix to deliver what it has accepted")
    assert found == Counter({("done", 1, 0): MAILS})
    assert Counter(mail.recipient for mail in postfix.mails()) == Counter(addresses)
    assert [limit for limit in BOTH_LIMITS if limit not in postfix.log] == []


@pytest.mark.parametrize("worker", [{}, {"RQ_WORKER_CLASS": OUTBOX_WORKER}], ids=["stock class", "OutboxWorker"])
def test_a_full_disk_is_an_outage_that_is_named(
    worker: dict[str, str],
    origin: Preloaded,
    database_url: str,
    redis_url: str,
    start_postfix: Callable[..., Postfix],
    tmp_path: Path,
) -> None:
    postfix = start_postfix(queue_minfree=str(2**62))
    with connect(database_url, "test") as connection:
        addresses = add_messages(connection, 3)
        servers = Servers(database_url, redis_url, postfix.smtp_url)
        with pipeline(servers, origin, tmp_path, OUTBOX_BACKOFF_SCALE="0.02", **worker) as running:
            wait_until(lambda: "Insufficient system storage" in running.log, 30, "the worker to say so")
            [(reason,)] = connection.execute("SELECT last_error FROM outbox_destinations").fetchall()
            postfix.reload(queue_minfree="0")
            wait_until(lambda: nothing_waits(connection), 60, "no message to be unfinished")

        assert outcomes(connection) == Counter({("done", 1, 0): 3})
    assert "452 4.3.1 Insufficient system storage" in reason
    wait_until(lambda: len(postfix.mails()) >= 3, 30, "Postfix to deliver what it has accepted")
    assert Counter(mail.recipient for mail in postfix.mails()) == Counter(addresses)
