"""The console's sessions, stored as rows: signing out or eight hours end one for every process at once.

PostgreSQL stores an HMAC of the cookie's secret by the token. So a row opens nothing, and a new token ends all
sessions.
"""

from dataclasses import dataclass, field
from typing import Final

from shared.database.connections import DbConnection

SESSION_SECONDS: Final = 8 * 3600


@dataclass(frozen=True, slots=True)
class Session:
    """An open session.

    Attributes:
        id: its name in log lines.
        secret: what its cookie contains.

    """

    id: int
    secret: str = field(repr=False)


def open_session(connection: DbConnection, secret_hmac: bytes) -> int:
    """Create a session, delete expired ones, and return its id."""
    connection.execute("DELETE FROM ops_sessions WHERE ends_at <= now()")
    [(session_id,)] = connection.execute(
        "INSERT INTO ops_sessions (secret_hmac, ends_at) VALUES (%s, now() + make_interval(secs => %s)) RETURNING id",
        [secret_hmac, SESSION_SECONDS],
    ).fetchall()
    return int(session_id)


def find_session(connection: DbConnection, secret_hmac: bytes) -> int | None:
    """Return the id of the open session; None if it has ended or never existed."""
    row = connection.execute(
        "SELECT id FROM ops_sessions WHERE secret_hmac = %s AND ends_at > now()", [secret_hmac]
    ).fetchone()
    return None if row is None else int(row[0])


def end_session(connection: DbConnection, session_id: int) -> None:
    """End the session: its cookie opens nothing from now on."""
    connection.execute("DELETE FROM ops_sessions WHERE id = %s", [session_id])


def keep_form(connection: DbConnection, session_id: int, form: str) -> None:
    """Record the session's last form, in that form's transaction."""
    connection.execute("UPDATE ops_sessions SET last_form = %s WHERE id = %s", [form, session_id])


def is_last_form(connection: DbConnection, session_id: int, form: str) -> bool:
    """Return whether this form is the session's last one, so that its button was pressed twice."""
    row = connection.execute("SELECT FROM ops_sessions WHERE id = %s AND last_form = %s", [session_id, form]).fetchone()
    return row is not None


def take_form(connection: DbConnection, session_id: int, form: str) -> bool:
    """Record the session's last form. Return False if it is that already, so that its button was pressed twice.

    The second of two at once waits for the first one's commit.
    """
    return (
        connection.execute(
            "UPDATE ops_sessions SET last_form = %(form)s WHERE id = %(id)s AND last_form IS DISTINCT FROM %(form)s",
            {"form": form, "id": session_id},
        ).rowcount
        == 1
    )
