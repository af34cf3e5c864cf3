"""Start the project's programs at once: each is forked from a process that has already imported what they need.

Python takes half a second of CPU time to import a relay or a worker and more for the API, and the tests start hundreds.
What is forked is a process like any other: it has a number, a session, an environment, a log and connections of its
own, and signals end it the same way. The process that it is forked from has one thread and no connection.

    python -m tests.programs.preloading SOCKET MODULE…
"""

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socketserver import ForkingMixIn, StreamRequestHandler, UnixStreamServer
from typing import Any, Final

from embedded.programs.program import Command, Program, dying_with

ROOT: Final = Path(__file__).parents[2]
READY: Final = "ready"

SERVICE: Final = (
    "outbox_relay.__main__",
    "rq.cli",
    "consumer.worker",
    "consumer.threaded.outbox_worker",
    "consumer.jobs",
)
"""What the relay and workers of both classes import.

`consumer.jobs` is among it as an RQ_CONFIG module would have it: a stock worker's horses do not import it again, in the
time of their job, each.
"""

API_LIBRARIES: Final = (
    "apispec.ext.marshmallow",
    "argon2",
    "email.headerregistry",
    "email_validator",
    "environs",
    "flask",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "limits.storage",
    "limits.strategies",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.orm",
    "structlog",
)
"""What the API takes long to import.

Not the API itself: that imports prometheus-client, which asks the environment at once whether processes of gunicorn
share their counts, and gunicorn.conf.py has to have said so before.
"""

_NUMBER: Final = struct.Struct("=i")
_FORK: Final = multiprocessing.get_context("fork")


def rq_key_prefix() -> str:
    """Return the prefix that RQ reads when it is imported, which is before tests/environment.py sets it."""
    return os.environ.get("RQ_KEY_PREFIX", "rq")


@dataclass(frozen=True)
class Preloaded:
    """The process that programs are forked from, and the socket at which it takes orders."""

    program: Program
    address: Path

    @classmethod
    def of(cls, modules: Sequence[str], folder: Path, **env: str) -> "Preloaded":
        """Prepare it; start nothing yet. What it has in its environment stands in /proc for all its forks too."""
        address, log_file = folder / "preloaded.sock", folder / "preloaded.log"
        needed = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "RQ_KEY_PREFIX": rq_key_prefix()}
        argv: list[str | Path] = [sys.executable, "-m", "tests.programs.preloading", address, *modules]
        return cls(Program(Command("preloaded", argv, {**needed, **env}, ROOT, log_file)), address)

    def start(self) -> None:
        """Start it and wait until it has imported the modules."""
        self.program.start()
        self.program.wait_ready(lambda: READY in self.program.command.log_file.read_text())


@contextmanager
def preloaded(modules: Sequence[str], folder: Path) -> Iterator[Preloaded]:
    """Import the modules once, for all programs that are started meanwhile. The folder is made if it is not there."""
    folder.mkdir(exist_ok=True)
    origin = Preloaded.of(modules, folder)
    try:
        origin.start()
        yield origin
    finally:
        origin.program.stop()


class PreloadedProgram(Program):
    """`python -m MODULE ARGUMENTS`, without the time that its imports take."""

    def __init__(self, command: Command, origin: Preloaded) -> None:
        super().__init__(command)
        self._origin = origin

    def _spawn(self) -> Any:
        return Fork(self._origin, self.command)


class Fork:
    """What Program asks of a subprocess.Popen, for a process that another process waits for and reports on."""

    def __init__(self, origin: Preloaded, command: Command) -> None:
        self._order_socket = socket.socket(socket.AF_UNIX)
        self._order_socket.connect(str(origin.address))
        command.log_file.touch()
        order = {
            "argv": list(map(str, command.argv)),
            "env": dict(command.env),
            "cwd": str(command.cwd),
            "log_file": str(command.log_file),
            "stop_signal": int(command.stop_signal),
        }
        self._order_socket.sendall(json.dumps(order).encode() + b"\n")
        self._name = command.name
        self.pid = self._next_number()
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self._exit_code is None:
            if select.select([self._order_socket], [], [], timeout) == ([], [], []):
                raise subprocess.TimeoutExpired(self._name, timeout or 0)
            self._exit_code = self._next_number()
            self._order_socket.close()
        return self._exit_code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _next_number(self) -> int:
        [number] = _NUMBER.unpack(self._order_socket.recv(_NUMBER.size))
        return int(number)


class Origin(ForkingMixIn, UnixStreamServer):
    """Forks a guard for each order, which forks the program and reports its number and, in the end, its exit code."""

    max_children = 1000  # one more would wait for the end of another

    def __init__(self, address: str) -> None:
        super().__init__(address, Guard)
        self.pid = os.getpid()

    def server_bind(self) -> None:
        """Any user who may write to the socket runs programs: only this one may, whatever the umask."""
        umask = os.umask(0o177)
        try:
            super().server_bind()
        finally:
            os.umask(umask)


class Guard(StreamRequestHandler):
    server: Origin

    def handle(self) -> None:
        dying_with(self.server.pid, signal.SIGKILL)()
        order = json.loads(self.rfile.readline())
        program = _FORK.Process(target=become, args=(order, os.getpid()))
        program.start()
        self.wfile.write(_NUMBER.pack(program.pid))
        program.join()
        self.wfile.write(_NUMBER.pack(program.exitcode))


def become(order: dict[str, Any], guard: int) -> None:
    """Run the program in a process that was forked for it, with all set that `python -m` would set."""
    os.setsid()
    dying_with(guard, signal.Signals(order["stop_signal"]))()
    os.chdir(order["cwd"])
    with Path(order["log_file"]).open("ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    prefix = rq_key_prefix()
    assert order["env"].get("RQ_KEY_PREFIX", prefix) == prefix, "RQ has read another one when it was imported"
    os.environ.clear()
    os.environ.update(order["env"])
    sys.orig_argv = order["argv"]
    _, _dash_m, module, *arguments = order["argv"]
    sys.argv = [module, *arguments]
    sys.path[0] = order["cwd"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # A process of multiprocessing leaves them out before Python 3.13, a program does not.
        atexit._run_exitfuncs()  # noqa: SLF001 - what newer versions of multiprocessing call themselves


def main(address: str, *modules: str) -> None:
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    with Origin(address) as origin:
        print(READY, flush=True)  # noqa: T201 - the process that started it waits for the word
        origin.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
