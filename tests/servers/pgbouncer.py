"""A PgBouncer in front of a test's PostgreSQL, pooling transactions over few connections."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from embedded.programs.accounts import unprivileged_account
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from shared.database.connections import connect

SERVER_CONNECTIONS = 3

_INI = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = {loopback}
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 500
"""


@contextmanager
def pgbouncer(database_url: str, folder: Path, roles: Sequence[str] = ()) -> Iterator[str]:
    """Return the address of the same database through a PgBouncer that holds SERVER_CONNECTIONS of it.

    Args:
        database_url: as which role, and where, it is reached without.
        folder: for its files; the account of PostgreSQL has to read them.
        roles: whom it lets in beside the one of the address.

    """
    # Debian keeps it in /usr/sbin, which is not on everybody's PATH.
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer: it is in Debian's package of this name")
    real, port = urlsplit(database_url), free_port()
    users, ini = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text("".join(f'"{role}" "{_password(database_url)}"\n' for role in (real.username, *roles)))
    ini.write_text(
        _INI.format(
            host=real.hostname,
            port=real.port,
            loopback=LOOPBACK,
            listen=port,
            users=users,
            connections=SERVER_CONNECTIONS,
        )
    )
    url = real._replace(netloc=f"{real.username}@{LOOPBACK}:{port}").geturl()
    server = Program(
        Command("PgBouncer", [program, ini], {}, folder, folder / "pgbouncer.log", account=unprivileged_account())
    )
    server.start()
    try:
        server.wait_ready(lambda: _answers(url))
        yield url
    finally:
        server.stop()


def _password(database_url: str) -> str:
    """Return what PgBouncer says to PostgreSQL; its own clients need nothing."""
    given = conninfo_to_dict(database_url)
    if "passfile" in given:
        return Path(str(given["passfile"])).read_text().strip().rpartition(":")[2]
    return str(given.get("password", ""))


def _answers(url: str) -> bool:
    try:
        connect(url, "test").close()
    except psycopg.Error:
        return False
    return True
