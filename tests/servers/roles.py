"""Create roles of PostgreSQL with only the grants that a test names."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg
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
            granted = SQL(", ").join(map(SQL, privileges))
            connection.execute(SQL("GRANT {} ON {} TO {}").format(granted, Identifier(table), name))
        yield role
    finally:
        connection.execute(SQL("DROP OWNED BY {}").format(name))
        connection.execute(SQL("DROP ROLE {}").format(name))


def with_role(database_url: str, role: str) -> str:
    """Return the address with another role, which gets the password that the address's own has."""
    with psycopg.connect(database_url) as connection:
        passwords = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname IN (current_user, %s)"
        of_role: dict[str, str] = dict(connection.execute(passwords, [role]).fetchall())
        own = connection.info.user
        password = of_role[own]
        if of_role[role] != password:
            connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), password))
    parts = urlsplit(database_url)
    login, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{role}{login.removeprefix(own)}@{place}").geturl()
