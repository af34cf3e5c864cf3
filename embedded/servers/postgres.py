"""A PostgreSQL server on 127.0.0.1."""

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote

from embedded.errors import AlreadyRunningError, EmbeddedError
from embedded.programs import folders, processes
from embedded.programs.accounts import unprivileged_account
from embedded.programs.ports import LOOPBACK
from embedded.programs.private_files import new_secret, write_private
from embedded.programs.program import Command, Program
from embedded.servers.databases import Databases
from embedded.servers.loopback_server import LoopbackServer
from embedded.servers.postgres_files import ENVIRONMENT, SUPERUSER, access_rules, binaries, make_cluster, set_password

_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_STOP_SECONDS = 60.0
# After a kill it flushes every file to the disk before it answers, which takes long on a busy disk.
_RECOVERY_SECONDS = 180.0
_BACKENDS_END_SECONDS = 1.0
_SHUTDOWN_SECONDS = 10.0
# Line numbers in postmaster.pid, as in PostgreSQL's miscadmin.h.
_PID_LINE, _STATUS_LINE = 0, 7


class PostgresServer(LoopbackServer, Databases):
    """One cluster in one folder: `data` (or a note that says where it is), `pgpass` and `postgres.log`.

    Unix sockets are off: their path may be at most 107 bytes long, which deep folders exceed. Any local user can reach
    the port, so each connection needs the password in `pgpass`, which only this user may read. URLs name that file; no
    URL, command line or log contains the password.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
        data_parents: Sequence[Path] = folders.DATA_PARENTS,
        predecessor_seconds: float = _SHUTDOWN_SECONDS,
    ) -> None:
        """Prepare a server in the folder. Nothing is started yet.

        Args:
            folder: for everything of this server.
            port: None for a free one.
            settings: of postgresql.conf.
            data_parents: where its data may be if PostgreSQL's account may not enter the folder.
            predecessor_seconds: how long to wait for the end of an earlier server of the folder.

        """
        super().__init__("PostgreSQL", port)
        self.folder = folder.absolute()
        self.settings = dict(settings)
        self.log_file = self.folder / "postgres.log"
        self.password_file = self.folder / "pgpass"
        self._predecessor_seconds = predecessor_seconds
        self._data_parents = data_parents
        self._data: Path | None = None

    @property
    def data(self) -> Path:
        """The folder of the cluster's files."""
        if self._data is None:
            self._data = folders.data_folder(self.folder, unprivileged_account(), self._data_parents)
        return self._data

    @property
    def psql_path(self) -> Path:
        """The path of a psql of the server's own version."""
        return binaries() / "psql"

    def url(self, dbname: str = "postgres") -> str:
        """Return the URL of a database. Only this user can use it."""
        return f"postgresql://{SUPERUSER}@{LOOPBACK}:{self.port}/{dbname}?passfile={quote(str(self.password_file))}"

    @property
    def password(self) -> str:
        """The superuser's password, from the first start on."""
        return self.password_file.read_text().strip().rpartition(":")[2]

    def start(self) -> None:
        """Start, and wait until it answers. The first start creates the cluster."""
        if self.running:
            raise AlreadyRunningError("PostgreSQL is already running")
        if not (self.data / "PG_VERSION").exists():
            self.password_file.unlink(missing_ok=True)
            make_cluster(self.data, durable=self.settings.get("fsync") != "off")
        self._wait_for_postmaster()
        self._end_backends()
        if not self.password_file.exists():
            # A new cluster, or one of a version without a password.
            password = new_secret()
            set_password(self.data, password)
            write_private(self.password_file, f"*:*:*:*:{password}\n")
        self._start_program(
            self._command,
            self._says_ready,
            ready_seconds=_RECOVERY_SECONDS,
            bind_error="could not bind",
            stop_signal=_STOP_SIGNALS["immediate"],
        )

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Shut down. `immediate` leaves recovery to the next start."""
        if self._program is not None:
            self._program.stop(_STOP_SECONDS, with_signal=_STOP_SIGNALS[mode])
        self._end_backends()

    def kill(self) -> None:
        """Kill -9 the postmaster and wait until no backend is left, so that it can be started again.

        Backends end by themselves when the postmaster is gone, but one that runs a query ends only after it. Until then
        it holds the shared memory and PostgreSQL refuses to start, so it is killed too.
        """
        if self._program is not None:
            self._program.kill()
        self._end_backends()

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop the server and delete its cluster, wherever that is."""
        self.stop("immediate")
        if self._pid_file():
            # It was killed: only its next start frees the kernel resources that it left.
            with contextlib.suppress(EmbeddedError):
                self.start()
            self.stop("immediate")
        shutil.rmtree(self.data, ignore_errors=True)
        for file in (self.folder / folders.ELSEWHERE_NOTE, self.password_file):
            file.unlink(missing_ok=True)
        self._data = None

    def _command(self) -> Command:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "hba_file": str(access_rules()),
            "logging_collector": "off",
            **self.settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return Command(
            name=self.name,
            argv=[binaries() / "postgres", "-D", self.data, *options],
            env=ENVIRONMENT,
            cwd=Path("/"),
            log_file=self.log_file,
            account=unprivileged_account(),
            # The fast shutdown: after SIGTERM it would wait for its clients to leave.
            stop_signal=signal.SIGINT,
        )

    def _says_ready(self, program: Program) -> bool:
        """Return whether postmaster.pid says that it is ready. Another server may answer on the port."""
        lines = self._pid_file()
        return (
            len(lines) > _STATUS_LINE
            and program.running
            and lines[_PID_LINE] == str(program.pid)
            and lines[_STATUS_LINE].strip() == "ready"
        )

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _wait_for_postmaster(self) -> None:
        """Wait for the end of a server that another process started here. It ends soon if that process died."""

        def postmaster() -> set[int]:
            return {pid for pid in self._processes() if [str(pid)] == self._pid_file()[:1]}

        if left := processes.wait_until_none(postmaster, self._predecessor_seconds):
            raise AlreadyRunningError(f"PostgreSQL already runs in {self.data} with process number {left.pop()}")

    def _end_backends(self) -> None:
        """Wait for the processes that a dead postmaster left. Their working directory is this cluster's."""
        for pid in processes.wait_until_none(self._processes, _BACKENDS_END_SECONDS):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left := processes.wait_until_none(self._processes, _SHUTDOWN_SECONDS):
            raise AlreadyRunningError(f"processes {sorted(left)} still use {self.data}")

    def _processes(self) -> set[int]:
        return processes.in_folder(self.data, "postgres")
