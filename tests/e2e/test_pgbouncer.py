"""API, relay and worker through a PgBouncer that pools transactions."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from embedded.mail.catcher import MailCatcher
from shared.database.connections import connect
from tests.programs.api_service import ALICE
from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded
from tests.programs.processes import OUTBOX_WORKER, started, worker_module, worker_settings
from tests.reused_database import APPLICATION_NAME
from tests.servers.pgbouncer import SERVER_CONNECTIONS, pgbouncer
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e]

SIGNUPS = 60


def sign_up(client: httpx.Client, number: int) -> int:
    request = {**ALICE, "username": f"user{number}", "email": f"user{number}@example.com"}
    return client.post("/v1/users", json=request).status_code


def test_every_signup_is_mailed_once_through_three_shared_connections(
    api_origin: Preloaded,
    origin: Preloaded,
    database_url: str,
    redis_url: str,
    mailbox: MailCatcher,
    server_folder: Path,
    tmp_path: Path,
) -> None:
    folder = server_folder / f"pgbouncer-{tmp_path.name}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with (
        pgbouncer(database_url, folder) as pooled,
        gunicorn(api_origin, pooled, tmp_path / "api.log") as client,
        started(
            [sys.executable, "-m", "outbox_relay"],
            {"DATABASE_URL": pooled, "OUTBOX_LISTEN_URL": database_url, "RQ_REDIS_URL": redis_url},
            tmp_path / "relay.log",
            origin,
        ) as relay,
        started(
            worker_module(),
            {**worker_settings(pooled, redis_url, mailbox.smtp_url), "RQ_WORKER_CLASS": OUTBOX_WORKER},
            tmp_path / "worker.log",
            origin,
        ) as worker,
        ThreadPoolExecutor(4) as pool,
        connect(database_url, "test") as direct,
    ):
        answers = list(pool.map(lambda number: sign_up(client, number), range(SIGNUPS)))
        wait_until(lambda: done(direct) == SIGNUPS, 60, "every message to be done")
        used = connections(direct)

    assert answers == [201] * SIGNUPS
    assert sorted(mail.recipients[0] for mail in mailbox.mails()) == sorted(
        f"user{number}@example.com" for number in range(SIGNUPS)
    )
    assert used <= SERVER_CONNECTIONS + 2  # the listener's, and the test's
    logs = relay.command.log_file.read_text() + worker.command.log_file.read_text()
    signs = (".unavailable", "InvalidSqlStatementName", "DuplicatePreparedStatement")
    assert [sign for sign in signs if sign in logs] == []


def done(connection: psycopg.Connection[tuple[object, ...]]) -> object:
    row = connection.execute("SELECT count(*) FROM outbox_finished WHERE status = 'done' AND attempt = 1").fetchone()
    assert row is not None
    return row[0]


def connections(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> %s",
        [APPLICATION_NAME],
    ).fetchone()
    assert row is not None
    return int(str(row[0]))
