"""The whole pipeline with real processes: HTTP signups while Redis is down, and every mail once."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from embedded.stack import Stack
from shared.outbox.messages import SendVerifyEmail, SendWelcomeEmail
from tests.programs.preloading import Preloaded
from tests.programs.processes import forked_stack
from tests.rows import add_message, add_user
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SIGNUPS = 50
BEFORE = 10


@pytest.fixture
def stack(server_folder: Path, origin: Preloaded, api_origin: Preloaded) -> Iterator[Stack]:
    """Everything runs but Redis."""
    with forked_stack(server_folder / "pipeline", origin, api_origin) as stack:
        stack.start_postgres()
        stack.start_mail_catcher()
        stack.start_api()
        stack.relay.start()
        stack.worker.start()
        yield stack


def sign_up(client: httpx.Client, number: int) -> int:
    request = {
        "username": f"user{number}",
        "full_name": f"User {number}",
        "email": f"user{number}@example.com",
        "password": "correct horse",
    }
    return client.post("/v1/users", json=request).status_code


def test_every_signup_without_redis_is_one_mail_with_it(stack: Stack) -> None:
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        for number in range(BEFORE):
            user = add_user(connection, f"before{number}")
            add_message(connection, SendWelcomeEmail.task, {"username": user})

    with httpx.Client(base_url=stack.api_url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(lambda number: sign_up(client, number), range(SIGNUPS)))
    assert answers == {201: SIGNUPS}
    assert stack.mails.names() == []

    stack.redis.start()
    wait_until(lambda: len(stack.mails.names()) >= SIGNUPS + BEFORE, 90, "all mails")
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        wait_until(lambda: unfinished(connection) == 0, 30, "all messages to be finished")
        finished = connection.execute(
            "SELECT task, count(*), max(attempt) FROM outbox_finished GROUP BY task"
        ).fetchall()

    mails = stack.mails.mails()
    recipients = Counter(mail.recipients[0] for mail in mails)
    subjects = [mail.message["Subject"] for mail in mails]
    assert set(recipients.values()) == {1}
    assert sorted(finished) == [(SendVerifyEmail.task, SIGNUPS, 1), (SendWelcomeEmail.task, BEFORE, 1)]
    # A worker has twelve messages in hand: the last critical mails and the first of default may overtake each other.
    assert subjects[: SIGNUPS - 12].count("Welcome") == 0


def unfinished(connection: psycopg.Connection[tuple[object, ...]]) -> object:
    row = connection.execute("SELECT count(*) FROM outbox").fetchone()
    return row and row[0]
