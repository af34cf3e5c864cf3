"""Users and messages written in plain SQL, in any state, and read back."""

from typing import Any
from uuid import uuid4

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier, Placeholder
from psycopg.types.json import Jsonb

from shared.outbox.messages import MAIL, SendVerifyEmail

_ANY_TIME = "2026-01-01T00:00:00Z"
_FAR_AWAY = "2100-01-01T00:00:00Z"

_COLUMNS_OF_STATUS: dict[str, dict[str, Any]] = {
    "pending": {},
    "published": {"broker_epoch": "an epoch", "published_at": _ANY_TIME, "lease_until": _FAR_AWAY},
    "running": {"attempt": 1, "claimed_at": _ANY_TIME, "lease_until": _FAR_AWAY},
    "dead": {"attempt": 11, "last_error": "a reason"},
}


def add_user(connection: Connection[Any], username: str = "alice", **overrides: Any) -> str:
    """Insert a user and return its name."""
    _insert(
        connection,
        "users",
        {
            "username": username,
            "email": f"{username}@example.com",
            "full_name": f"Full name of {username}",
            "hashed_password": "x",
            **overrides,
        },
    )
    return username


def add_message(
    connection: Connection[Any],
    task: str = SendVerifyEmail.task,
    payload: Any = None,
    queue: str = "default",
    status: str = "pending",
    **columns: Any,
) -> int:
    """Insert a message in this state, with what the state's constraints ask for, and return its id."""
    values = {
        "task": task,
        "payload": Jsonb({"username": "alice"} if payload is None else payload),
        "queue": queue,
        "status": status,
        **({"destination": MAIL} if task.startswith("task:send_") else {}),
        **_COLUMNS_OF_STATUS[status],
        **columns,
    }
    if status == "running":
        values.setdefault("claim_token", uuid4())
    return int(_insert(connection, "outbox", values, returning="id"))


def open_breaker(
    connection: Connection[Any],
    name: str = MAIL,
    *,
    probe_in_seconds: float = 0,
    open_seconds: float = 0,
    last_error: str | None = None,
) -> None:
    """Open a destination's breaker as after one outage, or open it again."""
    connection.execute(
        """
        INSERT INTO outbox_destinations (name, opened_at, outages, probe_at, last_error)
        VALUES (%(name)s, now() - make_interval(secs => %(open)s), 1,
                clock_timestamp() + make_interval(secs => %(probe)s), %(error)s)
            ON CONFLICT (name) DO UPDATE
           SET opened_at = excluded.opened_at, outages = 1, probe_at = excluded.probe_at, probe_id = NULL
        """,
        {"name": name, "open": open_seconds, "probe": probe_in_seconds, "error": last_error},
    )


def message(connection: Connection[Any], message_id: int) -> dict[str, Any]:
    """Read a message, live or finished."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("SELECT * FROM outbox_messages WHERE id = %s", [message_id]).fetchone()
    assert row is not None, f"message {message_id} is nowhere"
    return row


def end_leases(connection: Connection[Any]) -> None:
    """Let each lease be over."""
    connection.execute(
        "UPDATE outbox SET lease_until = clock_timestamp() - interval '1 s' WHERE lease_until IS NOT NULL"
    )


def ids_by_message_id(connection: Connection[Any], domain: str) -> dict[str, int]:
    """Return the messages' ids by the Message-ID that a sender of this domain writes; the mail itself shows no id."""
    rows = connection.execute("SELECT uid, id FROM outbox_messages WHERE uid IS NOT NULL").fetchall()
    return {f"<{uid}@{domain}>": id_ for uid, id_ in rows}


def history_rows_read(connection: Connection[Any]) -> int:
    """Return how many rows of history this session, and those that have ended, have read."""
    return _rows_read(connection, "outbox_finished", SQL("seq_tup_read + idx_tup_fetch"))


def rows_read_one_after_the_other(connection: Connection[Any]) -> int:
    """Return how many live messages they have read without an index."""
    return _rows_read(connection, "outbox", SQL("seq_tup_read"))


def rows_read_by_index(connection: Connection[Any]) -> int:
    """Return how many live messages they have read through an index."""
    return _rows_read(connection, "outbox", SQL("idx_tup_fetch"))


def pending_entries_read(connection: Connection[Any]) -> int:
    """Return how many entries of the pending messages' index they have read, those of rows that have gone too."""
    return _counted(
        connection, SQL("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = %s"), "outbox_due_idx"
    )


def _rows_read(connection: Connection[Any], table: str, counters: SQL) -> int:
    statement = SQL("SELECT {} FROM pg_stat_user_tables WHERE relname = %s").format(counters)
    return _counted(connection, statement, table)


def _counted(connection: Connection[Any], statement: SQL | Composed, name: str) -> int:
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(statement, [name]).fetchone()
    assert row is not None
    return int(row[0])


def _insert(connection: Connection[Any], table: str, values: dict[str, Any], returning: str | None = None) -> Any:
    statement = SQL("INSERT INTO {} ({}) VALUES ({})").format(
        Identifier(table),
        SQL(", ").join(map(Identifier, values)),
        SQL(", ").join(map(Placeholder, values)),
    )
    if returning is None:
        connection.execute(statement, values)
        return None
    row = connection.execute(statement + SQL(" RETURNING {}").format(Identifier(returning)), values).fetchone()
    assert row is not None
    return row[0]
