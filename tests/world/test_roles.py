"""Signup to mailbox with the four roles of docs/roles.sql, through a PgBouncer that pools transactions."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from embedded.servers.databases import Databases
from shared.database.connections import connect
from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded
from tests.programs.processes import OUTBOX_WORKER, ROOT
from tests.rows import add_user
from tests.servers.pgbouncer import pgbouncer
from tests.servers.roles import with_role
from tests.waiting import wait_until
from tests.world.messages import nothing_waits, outcomes
from tests.world.postfix import Postfix
from tests.world.service import Servers, pipeline, sign_up

API, RELAY, WORKER, APPENDER = "outbox_api", "outbox_relay", "outbox_worker", "outbox_appender"
NAMES = [f"user{number}" for number in range(8)]


@pytest.fixture
def pooled(postgres: Databases, database_url: str, server_folder: Path) -> Iterator[str]:
    """The database with the grants, through a PgBouncer that lets the four roles in."""
    postgres.apply_schema(urlsplit(database_url).path[1:], ROOT / "docs" / "roles.sql")
    folder = server_folder / f"pooled-{secrets.token_hex(4)}"
    folder.mkdir()
    folder.chmod(0o777)
    with pgbouncer(database_url, folder, [API, RELAY, WORKER, APPENDER]) as url:
        yield url


def test_each_process_needs_its_own_role_alone_behind_a_pooler(
    api_origin: Preloaded,
    origin: Preloaded,
    pooled: str,
    database_url: str,
    redis_url: str,
    start_postfix: Callable[..., Postfix],
    tmp_path: Path,
) -> None:
    postfix = start_postfix()
    with (
        connect(database_url, "test") as owner,
        gunicorn(api_origin, with_role(pooled, API), tmp_path / "api.log") as client,
        pipeline(
            Servers(
                with_role(pooled, RELAY),
                redis_url,
                postfix.smtp_url,
                listen=with_role(database_url, RELAY),
                worker_database=with_role(pooled, WORKER),
            ),
            origin,
            tmp_path,
            RQ_WORKER_CLASS=OUTBOX_WORKER,
        ),
        psycopg.connect(with_role(pooled, APPENDER), autocommit=True) as appender,
    ):
        assert sign_up(client, NAMES) == [201] * len(NAMES)
        add_user(owner, "grace")
        appender.execute(
            "INSERT INTO outbox (task, payload, queue)"
            """ VALUES ('task:send_welcome_email', '{"username": "grace"}', 'default')"""
        )
        people = [*NAMES, "grace"]
        wait_until(lambda: len(postfix.mails()) >= len(people), 60, "the mails of all")
        wait_until(lambda: nothing_waits(owner), 10, "no message to be unfinished")

        assert outcomes(owner) == Counter({("done", 1, 0): len(people)})
    assert Counter(mail.recipient for mail in postfix.mails()) == Counter(f"{name}@example.com" for name in people)
