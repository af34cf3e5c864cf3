"""Write many messages, and read what became of them."""

from collections import Counter
from typing import Any

from psycopg import Connection

from shared.outbox.messages import SendVerifyEmail


def add_messages(connection: Connection[Any], count: int) -> list[str]:
    """Add a user and a message for each of so many, and return their addresses."""
    connection.execute(
        "INSERT INTO users (username, email, full_name, hashed_password)"
        " SELECT 'user' || number, 'user' || number || '@example.com', 'A User', 'x'"
        " FROM generate_series(1, %s) number",
        [count],
    )
    connection.execute(
        "INSERT INTO outbox (task, payload, queue)"
        " SELECT %s, jsonb_build_object('username', 'user' || number), 'critical' FROM generate_series(1, %s) number",
        [SendVerifyEmail.task, count],
    )
    return [f"user{number}@example.com" for number in range(1, count + 1)]


def nothing_waits(connection: Connection[Any]) -> bool:
    """Return whether every message is finished or a dead letter."""
    return connection.execute("SELECT 1 FROM outbox WHERE status <> 'dead' LIMIT 1").fetchone() is None


def outcomes(connection: Connection[Any]) -> Counter[tuple[str, int, int]]:
    """Count the messages by status, attempts and failures that were written down."""
    rows = connection.execute(
        "SELECT status, attempt, jsonb_array_length(failures), count(*) FROM outbox_messages GROUP BY 1, 2, 3"
    ).fetchall()
    return Counter({(status, attempts, failures): count for status, attempts, failures, count in rows})
