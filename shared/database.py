"""Connections to PostgreSQL: how the long-lived processes hold them, and what a frozen process may hold up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

IDLE_IN_TRANSACTION_SECONDS: Final = 5
"""After this long PostgreSQL ends a transaction whose client has gone silent, and with it the locks it held."""

_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    # A peer that vanished without a word (a pulled plug, a dropped NAT entry) is noticed within this time.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


def conninfo(database_url: str, application_name: str) -> str:
    """Give libpq's connection string: what the URL says, and our defaults for what it leaves open."""
    given = conninfo_to_dict(database_url)
    missing = {name: value for name, value in _DEFAULTS.items() if name not in given}
    missing.setdefault("application_name", given.get("application_name") or application_name)
    return make_conninfo(database_url, **missing)


def connect(database_url: str, application_name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection in autocommit mode. Raises psycopg.OperationalError when PostgreSQL is unreachable."""
    return psycopg.connect(conninfo(database_url, application_name), autocommit=True)


@contextmanager
def transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Run a transaction that PostgreSQL itself ends if this process freezes in the middle of it.

    The limit is set inside each transaction because a setting of the session does not survive PgBouncer's transaction
    pooling.
    """
    with connection.transaction():
        connection.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
            [f"{IDLE_IN_TRANSACTION_SECONDS}s"],
        )
        yield
