"""A primary and a synchronous standby that streams from it."""

import subprocess
from pathlib import Path

import psycopg

from embedded.programs import folders
from embedded.programs.accounts import unprivileged_account
from embedded.programs.ports import LOOPBACK
from embedded.programs.private_files import write_private
from embedded.servers.postgres import PostgresServer
from embedded.servers.postgres_files import ENVIRONMENT, SUPERUSER, binaries
from tests.conftest import SCHEMA
from tests.waiting import wait_until

DATABASE = "outbox"
_SECONDS = 60.0


class PostgresPair:
    """Two servers, of which one answers a commit when the other has it on disk."""

    def __init__(self, folder: Path) -> None:
        """Start both; what is committed from now on is on both."""
        self.primary = PostgresServer(folder / "primary")
        self.standby = PostgresServer(folder / "standby")
        self.primary.start()
        self.primary.create_database(DATABASE)
        self.primary.apply_schema(DATABASE, SCHEMA)
        self._copy()
        self.standby.start()
        with psycopg.connect(self.primary.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            wait_until(lambda: _is_synchronous(connection), _SECONDS, "the standby to be synchronous")

    @property
    def url(self) -> str:
        """The address that names both and means whichever takes writes."""
        hosts = ",".join(f"{LOOPBACK}:{server.port}" for server in (self.primary, self.standby))
        options = f"passfile={self.primary.password_file}&target_session_attrs=read-write"
        return f"postgresql://{SUPERUSER}@{hosts}/{DATABASE}?{options}"

    def fail_over(self) -> None:
        """Kill the primary with all its backends, and make the standby the primary."""
        self.primary.kill()
        with psycopg.connect(self.standby.url(), autocommit=True) as connection:
            promoted = connection.execute("SELECT pg_promote(wait => true)").fetchone()
        assert promoted == (True,)

    def remove(self) -> None:
        """Stop both and delete their data."""
        self.standby.remove()
        self.primary.remove()

    def _copy(self) -> None:
        account = unprivileged_account()
        folders.make_writable_folder(self.standby.data, account)
        write_private(self.standby.password_file, self.primary.password_file.read_text())
        subprocess.run(
            [
                binaries() / "pg_basebackup",
                f"--dbname=postgresql://{SUPERUSER}@{LOOPBACK}:{self.primary.port}",
                f"--pgdata={self.standby.data}",
                "--write-recovery-conf",
                "--checkpoint=fast",
            ],
            # The account cannot read the file of the password; the standby keeps what it is given here.
            env={**ENVIRONMENT, "PGPASSWORD": self.primary.password},
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            check=True,
            capture_output=True,
        )


def _is_synchronous(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    return connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall() == [("sync",)]
