"""Roles of PostgreSQL that may do no more than a test says."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from psycopg import Connection
from psycopg.sql import SQL, Identifier


@contextmanager
def limited_role(connection: Connection[Any], grants: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Make a role with these grants, by table, and give its name; it goes with all that it was granted."""
    role = f"limited_{secrets.token_hex(4)}"
    name = Identifier(role)
    [(schema,)] = connection.execute("SELECT current_schema()").fetchall()
    connection.execute(SQL("CREATE ROLE {} LOGIN").format(name))
    try:
        connection.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(schema), name))
        for table, privileges in grants.items():
            granted = SQL(", ").join(map(SQL, privileges))  # type: ignore[arg-type] # a test's own words
            connection.execute(SQL("GRANT {} ON {} TO {}").format(granted, Identifier(table), name))
        yield role
    finally:
        connection.execute(SQL("DROP OWNED BY {}").format(name))
        connection.execute(SQL("DROP ROLE {}").format(name))


def with_role(database_url: str, role: str) -> str:
    """Give the address with another role."""
    parts = urlsplit(database_url)
    return parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}").geturl()
