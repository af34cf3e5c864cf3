"""Everything that a run needs, on free ports of 127.0.0.1, in one folder."""

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
import psycopg

from embedded import stack
from embedded.mail.folder import MailFolder
from embedded.programs.program import Program
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from tests.addresses import with_parameter
from tests.chaos import commands
from tests.chaos.checking import history
from tests.chaos.supervisor import Supervisor, kill_marked
from tests.programs.preloading import SERVICE, Preloaded

CALM_MAIL_SERVER: Final = "slow:0.02"
"""It takes a moment to answer, as real ones do: so there are always mails in flight when something is killed."""

_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.05


class Stack:
    """PostgreSQL, Redis (append-only), the mail server as a process, and the service under a supervisor."""

    def __init__(self, folder: Path, *, worker_class: str, relays: int, workers: int) -> None:
        self.folder = folder
        self.worker_class = worker_class
        self._mark = str(folder)
        self._parts = stack.Stack(folder, secret_key=commands.SECRET_KEY)
        self._parts.postgres.settings["max_connections"] = "200"
        self._origin = Preloaded.of(SERVICE, folder, **{commands.MARK_NAME: self._mark})
        programs = commands.service(
            self._parts, self._mark, self._origin, worker_class=worker_class, relays=relays, workers=workers
        )
        self.supervisor = Supervisor(programs, self._mark)

    @property
    def postgres(self) -> PostgresServer:
        """The database server."""
        return self._parts.postgres

    @property
    def redis(self) -> RedisServer:
        """The broker."""
        return self._parts.redis

    @property
    def mail(self) -> Program:
        """The mail server's process."""
        return self._parts.mail_catcher

    @property
    def mails(self) -> MailFolder:
        """What arrived, and the switch for what goes wrong."""
        return self._parts.mails

    @property
    def api_url(self) -> str:
        """Where people sign up."""
        return self._parts.api_url

    @property
    def database_url(self) -> str:
        """Where the run itself looks into the database."""
        return with_parameter(self._parts.database_url, "application_name=chaos&connect_timeout=3")

    def log_file(self, name: str) -> Path:
        """The log of a process of the service."""
        return self.supervisor.programs[name].command.log_file

    def start(self) -> None:
        """Start all of it and return when the API is ready."""
        self._parts.start_postgres()
        self.postgres.apply_schema(stack.DATABASE, history.SCHEMA)
        self.redis.start()
        self.mails.set_fault(CALM_MAIL_SERVER)
        self.start_mail()
        self._origin.start()
        self.supervisor.start()
        self.wait_until(self._api_is_ready, _READY_SECONDS, "the API to be ready")

    def start_mail(self) -> None:
        """Start the mail server and wait until it greets."""
        self._parts.start_mail_catcher()

    def wait_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for the condition. Raises TimeoutError naming what was waited for."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.supervisor.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what}; logs: {self.folder}")
            time.sleep(_PAUSE_SECONDS)

    def any_backend(self) -> int | None:
        """Return the number of a server process that works for the service; None when none can be asked for."""
        try:
            with closing(psycopg.connect(self.database_url, autocommit=True)) as connection:
                row = connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    " ORDER BY random() LIMIT 1"
                ).fetchone()
        except psycopg.OperationalError:
            return None
        return None if row is None else int(row[0])

    def wait_for_postgres(self) -> None:
        """Wait until it takes connections again, after a crash that it recovers from by itself."""
        self.wait_until(lambda: self.any_backend() is not None, _READY_SECONDS, "PostgreSQL to recover")

    def is_quiet(self) -> bool:
        """Return whether no message has anything ahead of it."""
        try:
            with closing(psycopg.connect(self.database_url, autocommit=True)) as connection:
                return history.is_quiet(connection)
        except psycopg.OperationalError:
            return False

    def stop_service(self) -> None:
        """End API, relays and workers as at a shutdown; whatever outlives that is killed."""
        self.supervisor.stop(_STOP_SECONDS)
        kill_marked(self._mark)

    def remove(self) -> None:
        """End everything at once and delete the servers' data; logs and mails stay."""
        self.supervisor.stop(0)
        self.mail.kill()
        self._origin.program.kill()
        kill_marked(self._mark)
        self.redis.kill()
        self.postgres.remove()
        shutil.rmtree(self.redis.folder, ignore_errors=True)

    def _api_is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/readyz", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False
