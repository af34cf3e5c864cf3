"""The API in this process, on the test's own database."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
from flask import Flask
from flask.testing import FlaskClient
from psycopg.rows import dict_row
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api.app import close, create_app
from api.clients.rate_limits import RateLimiter
from api.database.notifier import Notifier
from shared.links import sign, verification_link
from shared.settings.api import ApiSettings
from shared.settings.mail_limits import MailLimits
from tests.servers.roles import limited_role, with_role
from tests.waiting import wait_until

KEY = "the first key of the tests: 32 characters"
NO_MAIL_LIMITS = MailLimits(mailbox_an_hour=None, mailbox=None, client_an_hour=None, client=None)
OLD_KEY = "an older key of the tests: 32 characters"
ALICE = {
    "username": "alice",
    "full_name": "Alice Adams",
    "email": "alice@example.com",
    "password": "correct horse",
}
PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
"""The headers of a browser."""


@dataclass(frozen=True, slots=True)
class ApiService:
    """What a test does with the API from outside."""

    app: Flask
    database_url: str

    def client(self) -> FlaskClient:
        """Return a new client: each thread needs its own."""
        return self.app.test_client()

    def sign_up(self, **changes: object) -> TestResponse:
        """Sign up Alice, with changes to her fields."""
        return self.client().post("/v1/users", json={**ALICE, **changes})

    def sql(self, statement: str, values: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
        """Run a statement and return its rows."""
        with psycopg.connect(self.database_url, autocommit=True, row_factory=dict_row) as connection:
            connection.execute("SET datestyle = 'ISO'")  # psycopg reads times in no other
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def messages(self) -> list[tuple[str, str]]:
        """Return the task and the payload's username of every message, in the order of their ids."""
        rows = self.sql("SELECT task, payload->>'username' AS username FROM outbox ORDER BY id")
        return [(row["task"], row["username"]) for row in rows]

    def is_verified(self, username: str = "alice") -> bool:
        """Return whether the user's address is verified."""
        [row] = self.sql("SELECT is_email_verified FROM users WHERE username = %(name)s", {"name": username})
        return bool(row["is_email_verified"])

    def wait_for_a_lock(self, *, statements: int = 1) -> None:
        """Wait until this many statements in the database wait for another's lock."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_until(lambda: len(self.sql(waiting)) >= statements, 10, f"{statements} statement(s) that wait for a lock")

    def record(self, username: str = "alice", *, life: str = "1 hour") -> int:
        """Create a verification record as the consumer does at a message's first claim, and return its id."""
        [row] = self.sql(
            "INSERT INTO verify_emails (username, email, message_id, expires_at)"
            " SELECT username, email, (SELECT count(*) FROM verify_emails) + 1, now() + %(life)s::interval"
            " FROM users WHERE username = %(name)s RETURNING id",
            {"name": username, "life": life},
        )
        return int(row["id"])

    def link(self, record_id: int, *, key: str = KEY, email: str = ALICE["email"]) -> str:
        """Return the path and the query of the record's link."""
        parts = urlsplit(verification_link("https://example.com", record_id, sign([key], record_id, email)))
        return f"{parts.path}?{parts.query}"


@contextmanager
def api_service(
    database_url: str,
    *,
    engine: Engine | None = None,
    notifier: Notifier | None = None,
    rate_limiter: RateLimiter | None = None,
    ops_token: str | None = None,
    **changes: Any,
) -> Iterator[ApiService]:
    """Build the API, and close its resources at the end."""
    settings = ApiSettings(
        **{
            "database_url": database_url,
            "secret_keys": (KEY,),
            "signup_mail_delay_seconds": 0.0,
            "trusted_proxies": 0,
            **changes,
        }
    )
    app = create_app(settings, engine=engine, notifier=notifier, rate_limiter=rate_limiter, ops_token=ops_token)
    try:
        yield ApiService(app, database_url)
    finally:
        close(app)


@contextmanager
def limited_api(api: ApiService) -> Iterator[tuple[ApiService, str]]:
    """Yield an API whose role may only use the tables, and the role's name."""
    tables = (
        "users",
        "verify_emails",
        "outbox",
        "outbox_finished",
        "idempotency_keys",
        "resends",
        "verification_mails",
        "mail_counts",
    )
    grants: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(tables, ("SELECT", "INSERT", "UPDATE", "DELETE")),
        "webhook_endpoints": ("SELECT",),
        "outbox_id_seq": ("USAGE",),
    }
    with (
        psycopg.connect(api.database_url, autocommit=True) as connection,
        limited_role(connection, grants) as role,
        api_service(with_role(api.database_url, role)) as limited,
    ):
        yield limited, role
