"""/readyz says whether a signup would succeed."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog

from api.database.engine import build_engine
from embedded.servers.postgres import PostgresServer
from tests.programs.api_service import ApiService, api_service, limited_api


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


def readiness(api: ApiService) -> tuple[int, str]:
    answer = api.client().get("/readyz")
    body = answer.get_json()
    return answer.status_code, body.get("detail", body.get("status"))


def a_missing_table(api: ApiService) -> None:
    api.sql("DROP TABLE resends")


def a_missing_column(api: ApiService) -> None:
    api.sql("ALTER TABLE outbox DROP COLUMN traceparent CASCADE")


def a_server_that_takes_no_writes(api: ApiService) -> None:
    name = urlsplit(api.database_url).path[1:]
    api.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (a_missing_table, 'relation "resends" does not exist'),
        (a_missing_column, 'column "traceparent" of relation "outbox" does not exist'),
        (a_server_that_takes_no_writes, "default_transaction_read_only is on"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_signup_would_meet_is_said(api: ApiService, plant: Any, reason: str) -> None:
    assert readiness(api) == (200, "ready")
    plant(api)
    with api_service(api.database_url) as restarted:
        status, detail = readiness(restarted)

    assert (status, reason in detail) == (503, True), detail


def test_a_missing_grant_is_said(api: ApiService) -> None:
    with limited_api(api) as (limited, role):
        before = readiness(limited)
        api.sql(f"REVOKE USAGE ON outbox_id_seq FROM {role}")
        without_ids = readiness(limited)
        api.sql(f"REVOKE INSERT ON outbox FROM {role}")
        after = readiness(limited)
        signed_up = limited.sign_up()

    assert before == (200, "ready")
    assert (without_ids[0], "USAGE on outbox_id_seq" in without_ids[1]) == (503, True)
    assert (after[0], "permission denied for table outbox" in after[1]) == (503, True)
    assert signed_up.status_code == 503


def test_a_standby_is_not_ready(own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    (own_postgres.data / "standby.signal").touch()
    own_postgres.start()
    with api_service(own_postgres.url("outbox")) as api:
        status, detail = readiness(api)

    assert (status, "is a standby. Set DATABASE_URL to the primary" in detail) == (503, True)


def test_readiness_needs_no_connection_of_the_pool(database_url: str) -> None:
    engine = build_engine(database_url, pool_seconds=0.1)
    with api_service(database_url, engine=engine) as api:
        lent = [engine.connect() for _ in range(15)]  # all that the pool has
        try:
            assert api.sign_up().status_code == 503
            assert readiness(api) == (200, "ready")
        finally:
            for connection in lent:
                connection.close()


def test_a_reason_is_logged_once_and_so_is_its_end(api: ApiService) -> None:
    with structlog.testing.capture_logs() as logs:
        readiness(api)
        api.sql("ALTER TABLE resends RENAME TO gone")
        statuses = [readiness(api)[0] for _ in range(2)]
        api.sql("ALTER TABLE gone RENAME TO resends")
        statuses.append(readiness(api)[0])

    assert statuses == [503, 503, 200]
    assert [line["event"] for line in logs if line["event"].startswith("readiness")] == [
        "readiness.lost",
        "readiness.regained",
    ]


def test_a_server_that_takes_no_further_connection_is_not_ready(api: ApiService) -> None:
    with limited_api(api) as (limited, role):
        before = readiness(limited)[0]
        api.sql(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        after, detail = readiness(limited)

    assert (before, after, "PostgreSQL is down or refuses connections" in detail) == (200, 503, True)


@pytest.mark.parametrize("table", ["idempotency_keys", "resends"])
def test_a_grant_to_delete_what_is_old_is_needed_too(api: ApiService, table: str) -> None:
    with limited_api(api) as (limited, role):
        api.sql(f"REVOKE DELETE ON {table} FROM {role}")
        status, detail = readiness(limited)

    assert (status, f"permission denied for table {table}" in detail) == (503, True)
