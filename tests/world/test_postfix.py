"""Signup to mailbox through Debian's PostgreSQL, Redis and Postfix."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.database.connections import connect
from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded
from tests.programs.processes import OUTBOX_WORKER
from tests.waiting import wait_until
from tests.world.messages import nothing_waits, outcomes
from tests.world.postfix import Postfix
from tests.world.service import Servers, pipeline, sign_up

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
    with (
        connect(database_url, "test") as connection,
        gunicorn(api_origin, database_url, tmp_path / "api.log") as client,
        pipeline(Servers(database_url, redis_url, postfix.smtp_url), origin, tmp_path, **worker),
    ):
        assert sign_up(client, NAMES) == [201] * len(NAMES)
        wait_until(lambda: len(postfix.mails()) >= len(NAMES), 60, "the mails of all")
        wait_until(lambda: nothing_waits(connection), 10, "no message to be unfinished")

        assert outcomes(connection) == Counter({("done", 1, 0): len(NAMES)})
    assert Counter(mail.recipient for mail in postfix.mails()) == Counter(f"{name}@example.com" for name in NAMES)
    assert {mail.message["Subject"] for mail in postfix.mails()} == {"Verify your email address"}
