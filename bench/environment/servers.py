"""The servers of a run: PostgreSQL and Redis with their defaults, and the mail sink."""

import os
import shutil
import smtplib
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import psycopg

from bench.children import environment
from embedded.programs.ports import LOOPBACK, free_port
from embedded.programs.program import Command, Program
from embedded.servers.postgres import PostgresServer
from embedded.servers.redis import RedisServer
from embedded.stack import ROOT

_TEMPLATE: Final = "bench_template"
_SYNCS: Final = 200
_PAGE: Final = bytes(8192)
_TRIED_MAILS: Final = 1000
_TRIED_MAIL: Final = b"Subject: Verify your email address\r\n\r\n" + b"x" * 70 * 40
"""A mail of the size of a verification mail."""


class Sink:
    """The mail sink's process, and the connection that asks it what it accepted."""

    def __init__(self, log_file: Path) -> None:
        """Prepare it; start nothing yet."""
        self._port = free_port()
        argv = [sys.executable, "-m", "bench.environment.sink", "--port", str(self._port)]
        self._program = Program(Command("mail sink", argv, environment({}), ROOT, log_file))

    @property
    def url(self) -> str:
        """The URL for SMTP_URL."""
        return f"smtp://{LOOPBACK}:{self._port}"

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        return self._port

    def start(self) -> None:
        """Start it and wait until it greets."""
        self._program.start()
        self._program.wait_ready(self._greets)

    def stop(self) -> None:
        """End it."""
        self._program.stop()

    def begin(self, delay_seconds: float = 0.0) -> None:
        """Forget what was accepted. From now on accepting a mail takes this long."""
        self._ask(f"XDELAY {delay_seconds}")

    def count(self) -> int:
        """Return how many mails were accepted since the beginning."""
        return int(self._ask("XCOUNT"))

    def times(self) -> list[float]:
        """Return when they were accepted, by the clock of time.monotonic()."""
        return [int(at) / 1e9 for at in self._ask("XTIMES").split()]

    def cost_microseconds(self) -> float:
        """Return the processor time that the sink itself takes for a mail of the usual size on a kept connection."""
        process = psutil.Process(self._program.pid)
        before = process.cpu_times()
        with smtplib.SMTP(LOOPBACK, self._port, local_hostname="example.org") as client:
            for _ in range(_TRIED_MAILS):
                client.sendmail("a@example.org", ["b@example.org"], _TRIED_MAIL)
        after = process.cpu_times()
        used: float = after.user - before.user + after.system - before.system
        return used / _TRIED_MAILS * 1e6

    def _greets(self) -> bool:
        try:
            self.count()
        except OSError:
            return False
        return True

    def _ask(self, question: str) -> str:
        with socket.create_connection((LOOPBACK, self._port), timeout=10) as line, line.makefile("rwb") as file:
            file.readline()
            file.write(f"{question}\r\n".encode())
            file.flush()
            return file.readline().decode().removeprefix("250").strip()


class Servers:
    """All servers of a run, in one folder; use `running()`."""

    def __init__(self, folder: Path) -> None:
        """Prepare them."""
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.folder = folder
        self.postgres = PostgresServer(folder / "postgres")
        # Redis' own default: no append-only file. The guarantees do not need one.
        self.redis = RedisServer(folder / "redis", append_only=False, settings={"save": ""})
        self.sink = Sink(self.logs / "sink.log")

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Servers"]:
        """Start them, in a folder that is removed in the end."""
        folder = Path(tempfile.mkdtemp(prefix="outbox-bench-"))
        folder.chmod(0o711)  # PostgreSQL's account has to enter it
        servers = cls(folder)
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> None:
        """Start them all."""
        self.postgres.start()
        self.postgres.create_database(_TEMPLATE)
        self.postgres.apply_schema(_TEMPLATE, ROOT / "schema.sql")
        self.redis.start()
        self.sink.start()

    def stop(self) -> None:
        """Stop them all."""
        self.sink.stop()
        self.redis.kill()
        self.postgres.remove()

    def new_database(self, name: str) -> str:
        """Create an empty database with the tables, in place of one with that name, and return its URL."""
        self.postgres.drop_database(name)
        return self.postgres.create_database(name, template=_TEMPLATE)

    def empty_redis(self) -> None:
        """Forget all jobs."""
        with self.redis.client() as client:
            client.flushall()

    def log_file(self, name: str) -> Path:
        """Return where a process of that name writes its log."""
        return self.logs / f"{name.replace(' ', '-').replace('/', '-')}.log"

    def versions(self) -> dict[str, str]:
        """Return the servers' versions."""
        with psycopg.connect(self.postgres.url()) as connection:
            row = connection.execute("SELECT current_setting('server_version'), pg_jit_available()").fetchone()
        with self.redis.client() as client:
            redis: dict[str, object] = client.info("server")
        version, has_jit = row or ("?", False)
        return {
            "PostgreSQL": f"{version}, JIT {'on' if has_jit else 'not available'}",
            "Redis": str(redis["redis_version"]),
        }

    def sync_microseconds(self) -> float:
        """Return the median time of writing a page and flushing it to the disk, beside the database's files."""
        file = self.folder / "sync"
        times = []
        handle = os.open(file, os.O_WRONLY | os.O_CREAT)
        try:
            for _ in range(_SYNCS):
                started = time.perf_counter()
                os.pwrite(handle, _PAGE, 0)
                os.fdatasync(handle)
                times.append(time.perf_counter() - started)
        finally:
            os.close(handle)
            file.unlink()
        return statistics.median(times) * 1e6
