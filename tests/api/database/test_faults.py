"""PostgreSQL unreachable, frozen, without tables, or refusing; and what is never shown or logged."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
import structlog
from sqlalchemy import Engine

from api.database.engine import build_engine, connected
from embedded.servers.postgres import PostgresServer
from tests.programs.api_service import ALICE, PAGE, ApiService, api_service

NOBODY = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    """Stop the postmaster and the API's backends, as a paused virtual machine does."""
    with psycopg.connect(server.url("outbox"), autocommit=True) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox-api'").fetchall()
    pids = [server.pid, *(pid for (pid,) in rows)]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/users", ALICE),
        ("GET", "/v1/verify_email?email_id=1&secret_code=x", None),
        ("POST", "/v1/verify_email?email_id=1&secret_code=x", None),
        ("POST", "/v1/verify_email/resend", {"email": "alice@example.com"}),
    ],
)
def test_absent_postgresql_is_reported_within_seconds(method: str, path: str, body: dict[str, str] | None) -> None:
    with api_service(NOBODY) as api:
        before = time.monotonic()
        response = api.client().open(path, method=method, json=body)
        took = time.monotonic() - before

    assert (response.status_code, response.mimetype) == (503, "application/problem+json")
    assert response.headers["Retry-After"] == "5"
    assert "may have been saved" in response.get_json()["detail"]
    assert took < 8


def test_service_goes_on_when_postgresql_is_back(own_postgres: PostgresServer) -> None:
    with api_service(own_postgres.url("outbox")) as api:
        statuses = [api.sign_up().status_code]
        own_postgres.kill()
        statuses.append(api.sign_up(username="bob", email="bob@example.com").status_code)
        own_postgres.start()
        statuses.append(api.sign_up(username="bob", email="bob@example.com").status_code)

        assert statuses == [201, 503, 201]
        assert [username for _, username in api.messages()] == ["alice", "bob"]


def test_no_use_case_pays_for_a_connection_that_died_in_the_pool(database_url: str) -> None:
    engine = build_engine(database_url)
    with closing(psycopg.connect(database_url, autocommit=True)) as administrator:
        first = backend_of(engine)
        administrator.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
        second = backend_of(engine)
        with connected(engine) as connection:
            # As after a query of the console that took too long.
            driver_connection = connection.connection.driver_connection
            assert driver_connection is not None
            driver_connection.close()
        third = backend_of(engine)

    assert len({first, second, third}) == 3
    assert backend_of(engine) == third
    engine.dispose()


def backend_of(engine: Engine) -> int:
    with connected(engine) as connection:
        return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def test_frozen_postgresql_is_reported_within_seconds(own_postgres: PostgresServer) -> None:
    url = own_postgres.url("outbox")
    with api_service(url, engine=build_engine(url, answer_seconds=2.0)) as api:
        api.sign_up()
        with frozen(own_postgres):
            before = time.monotonic()
            response = api.sign_up(username="bob", email="bob@example.com")
            took = time.monotonic() - before

        # Two seconds for the connection that was silent, three for the new one.
        assert response.status_code == 503
        assert took < 15
        assert api.sign_up(username="carol", email="carol@example.com").status_code == 201


def test_first_of_several_hosts_that_answers_is_used(database_url: str) -> None:
    scheme, _, rest = database_url.partition("://")
    user, _, rest = rest.partition("@")

    with api_service(f"{scheme}://{user}@127.0.0.1:1,{rest}") as api:
        assert api.client().get("/readyz").status_code == 200


def test_service_with_its_tables_is_ready(api: ApiService) -> None:
    response = api.client().get("/readyz")

    assert (response.status_code, response.get_json()) == (200, {"status": "ready"})


def test_service_without_tables_is_not_ready_and_names_the_file(empty_database_url: str) -> None:
    with api_service(empty_database_url) as api:
        response = api.client().get("/readyz")

    assert (response.status_code, response.mimetype) == (503, "application/problem+json")
    assert "schema.sql" in response.get_json()["detail"]


def test_signup_before_the_tables_exist_may_be_repeated(empty_database_url: str) -> None:
    with api_service(empty_database_url) as api:
        response = api.sign_up()

    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


def test_service_without_postgresql_is_alive_and_not_ready() -> None:
    with api_service(NOBODY) as api:
        alive, ready = api.client().get("/healthz"), api.client().get("/readyz")

    assert (alive.status_code, ready.status_code) == (200, 503)
    assert "DATABASE_URL" in ready.get_json()["detail"]


@pytest.mark.parametrize("table", ["users", "outbox"])
def test_signup_of_which_one_half_fails_leaves_neither(api: ApiService, table: str) -> None:
    api.sql(f"ALTER TABLE {table} ADD CONSTRAINT refuses_all CHECK (false)")

    response = api.sign_up()

    assert (response.status_code, response.mimetype) == (500, "application/problem+json")
    assert api.sql("SELECT 1 FROM users") == []
    assert api.messages() == []


@pytest.mark.parametrize("table", ["verify_emails", "users", "outbox"])
def test_verification_of_which_one_part_fails_leaves_nothing(api: ApiService, table: str) -> None:
    api.sign_up()
    link = api.link(api.record())
    api.sql(f"ALTER TABLE {table} ADD CONSTRAINT refuses_all CHECK (false) NOT VALID")

    response = api.client().post(link)

    assert response.status_code == 500
    assert not api.is_verified()
    assert api.sql("SELECT 1 FROM verify_emails WHERE used_at IS NOT NULL") == []
    api.sql(f"ALTER TABLE {table} DROP CONSTRAINT refuses_all")
    assert api.client().post(link).status_code == 200


def test_no_address_password_or_code_is_ever_logged(
    api: ApiService, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as lines:
        token = api.sign_up().get_json()["signup_token"]
        api.sign_up()
        api.sign_up(password="another horse")  # noqa: S106
        api.sign_up(email="alice@@example.com")
        api.client().post("/v1/verify_email/resend", json={"email": "alice@example.com"})
        link = api.link(api.record())
        for path in (link, f"{link}x", link):
            api.client().get(path, headers=PAGE)
            api.client().post(path)
        # Its DETAIL quotes the whole row.
        api.sql("ALTER TABLE users ADD CONSTRAINT refuses_all CHECK (false) NOT VALID")
        refused = api.sign_up(username="bob", email="alice@example.net")

    logged = f"{lines}{caplog.text}{capfd.readouterr()}"
    assert [line["event"] for line in lines] == [
        "user.signed_up",
        "signup.resumed",
        "signup.refused",
        "verification_mail.requested",
        "user.verified",
        "request.failed",
    ]
    for secret in ("alice", "bob", "correct horse", "argon2", link.rpartition("=")[2], token):
        assert secret not in logged
        assert secret not in refused.text
