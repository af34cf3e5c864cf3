"""Signup to mailbox through Debian's PostgreSQL, Redis and Postfix."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.database import connect
from tests.preloading import Preloaded
from tests.processes import OUTBOX_WORKER
from tests.waiting import wait_until
from tests.world.postfix import Postfix
from tests.world.service import Addresses, Origins, running_service

NAMES = [f"user{number}" for number in range(8)]


@pytest.mark.parametrize("worker", [{}, {"RQ_WORKER_CLASS": OUTBOX_WORKER}], ids=["stock class", "OutboxWorker"])
def test_each_signup_reaches_the_mailbox_once(
    worker: dict[str, str],
    api_origin: Preloaded,
    origin: Preloaded,
    database_url: str,
    redis_url: str,
    start_postfix: Callable[..., Postfix],
    tmp_path: Path,
) -> None:
    postfix = start_postfix()
    addresses = Addresses.of(database_url, redis_url, postfix.smtp_url)
    with (
        running_service(Origins(api_origin, origin), addresses, tmp_path, worker) as service,
        connect(database_url, "test") as connection,
    ):
        assert service.sign_up_all(NAMES) == [201] * len(NAMES)
        wait_until(lambda: len(postfix.mails()) >= len(NAMES), 60, "the mails of all")
        wait_until(
            lambda: connection.execute("SELECT 1 FROM outbox").fetchone() is None, 10, "no message to be unfinished"
        )
        finished = connection.execute("SELECT status, attempt, count(*) FROM outbox_finished GROUP BY 1, 2").fetchall()

    assert finished == [("done", 1, len(NAMES))]
    assert Counter(mail.recipient for mail in postfix.mails()) == Counter(f"{name}@example.com" for name in NAMES)
    assert {mail.message["Subject"] for mail in postfix.mails()} == {"Verify your address"}
