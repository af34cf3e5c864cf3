"""Accounts as old as a test needs them, and their expiry."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from outbox_relay.loop.maintenance.expiry import AccountExpiry
from tests.rows import add_user

Connection = psycopg.Connection[tuple[Any, ...]]
DAYS = 7
REFUSED = [{"at": "2026-01-01T00:00:00Z", "attempt": 1, "reason": "refused", "about_recipient": True}]


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def add_old_user(connection: Connection, name: str = "alice", **columns: Any) -> str:
    return add_user(connection, name, **{"created_at": days_ago(9), **columns})


def add_link(connection: Connection, name: str, message_id: int, ended: datetime) -> None:
    connection.execute(
        "INSERT INTO verify_emails (username, email, message_id, expires_at) VALUES (%s, 'a@example.com', %s, %s)",
        [name, message_id, ended],
    )


def expire(connection: Connection, days: float = DAYS) -> int:
    """Expire accounts as a relay does that looks for the first time."""
    return AccountExpiry(days).step(connection).deleted


def accounts(connection: Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT username FROM users").fetchall()}
