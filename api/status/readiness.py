"""Check that a signup would succeed: PostgreSQL plans the statements of the use cases without executing them.

Planning finds a missing table or column, and is refused where a grant is missing. Other checks find what only execution
would show, such as a read-only server.
"""

from functools import cache
from typing import Any, Final

import psycopg
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.selectable import Select

from api.accounts import idempotency, resend
from api.accounts.corrections import correct_statement
from api.accounts.mail_limits.statements import SHAPES
from api.accounts.mail_limits.waiting_mails import hand_over_statement, release_statement
from api.accounts.signup import signup_statement
from api.accounts.verification_statements import use_statement
from api.database.engine import DatabaseUnavailableError, SchemaMissingError
from api.database.side_connections import DatabaseSlowError, GrantMissingError, SideConnections
from shared.database.connections import UnsuitableDatabaseError, check_encoding
from shared.database.read_transaction import read_transaction
from shared.outage_causes import postgresql_reason

_TAKES_WRITES: Final = "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean"


class NotReadyError(DatabaseUnavailableError):
    """A signup would get 503 or 500.

    Attributes:
        reason: for the log, with PostgreSQL's host and port.
        detail: for the client.

    """

    def __init__(self, reason: str, detail: str) -> None:
        self.detail = detail
        super().__init__(reason)


def check_readiness(connections: SideConnections) -> None:
    """Check that signups, verifications and resends would succeed. Raises NotReadyError."""
    try:
        with connections.borrow() as connection, read_transaction(connection):
            _check_encoding(connection)
            _check_writes(connection)
            for statement, values in _statements():
                connection.execute(f"EXPLAIN {statement}", values)
            _check_ids(connection)
    except NotReadyError:
        raise
    except SchemaMissingError as exc:
        detail = (
            f"The schema does not match this version: {_said(exc)}."
            " Apply schema.sql to an empty database, run alembic upgrade head, or grant USAGE on the schema."
        )
        raise NotReadyError(exc.reason, detail) from exc
    except GrantMissingError as exc:
        raise NotReadyError(
            exc.reason,
            f"A grant is missing: {_said(exc)}. Grant the API's role what docs/roles.sql grants it.",
        ) from exc
    except DatabaseSlowError as exc:
        raise NotReadyError(exc.reason, "PostgreSQL takes too long to answer. Find out what keeps it busy.") from exc
    except DatabaseUnavailableError as exc:
        raise NotReadyError(
            exc.reason,
            "PostgreSQL is down or refuses connections. Start it, or fix DATABASE_URL. The log has the reason.",
        ) from exc


def _check_encoding(connection: psycopg.Connection[Any]) -> None:
    try:
        check_encoding(connection)
    except UnsuitableDatabaseError as exc:
        raise NotReadyError(str(exc), f"Signups cannot be stored: {exc}.") from exc


def _check_writes(connection: psycopg.Connection[Any]) -> None:
    [(is_standby, is_read_only)] = connection.execute(_TAKES_WRITES).fetchall()
    if is_standby:
        raise NotReadyError(
            "a standby takes no writes", "This PostgreSQL is a standby. Set DATABASE_URL to the primary."
        )
    if is_read_only:
        raise NotReadyError(
            "default_transaction_read_only is on",
            "This PostgreSQL is read-only: default_transaction_read_only is on for the server, database or role.",
        )


def _check_ids(connection: psycopg.Connection[Any]) -> None:
    """Check the grant that planning does not: on the sequence that gives a discarded mail its id."""
    [(may_count,)] = connection.execute("SELECT has_sequence_privilege('outbox_id_seq', 'USAGE, UPDATE')").fetchall()
    if not may_count:
        raise NotReadyError(
            "no USAGE on outbox_id_seq",
            "A grant is missing: USAGE on outbox_id_seq. Grant the API's role what docs/roles.sql grants it.",
        )


@cache
def _statements() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return each use case's statement in the driver's form, with NULL for each parameter."""
    used: list[Insert | Select[Any] | Delete | Update] = [
        *map(signup_statement, SHAPES),
        idempotency.keep_statement(),
        idempotency.delete_expired_statement(),
        *map(resend.ask_statement, SHAPES),
        resend.delete_expired_statement(),
        *map(correct_statement, SHAPES),
        release_statement(),
        hand_over_statement(),
        use_statement(),
    ]
    dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call] # SQLAlchemy has no types for it
    compiled = [statement.compile(dialect=dialect) for statement in used]
    return tuple((str(each), dict(each.params)) for each in compiled)


def _said(error: DatabaseUnavailableError) -> str:
    return postgresql_reason(error.__cause__) if error.__cause__ else error.reason
