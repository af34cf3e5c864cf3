"""Starts each process of the service again when it has ended, as a supervisor with `restart: always` does."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedded.programs import processes
from embedded.programs.program import Program
from tests.chaos.commands import MARK_NAME

_TICK_SECONDS: Final = 0.05
_RESTART_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Exit:
    """A process that ended: by a fault's signal (negative) or by its own decision."""

    name: str
    code: int
    at: float


class Supervisor(threading.Thread):
    """Owns the processes: the kernel ends what a thread started when that thread ends."""

    def __init__(self, programs: Sequence[Program], mark: str) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._mark = mark
        self._pids: dict[str, int] = {}
        self.programs = {program.name: program for program in programs}
        self.exits: list[Exit] = []
        self.error: BaseException | None = None
        # No other thread may reap a process between the reading of its pid and a signal to it: the pid could be
        # another process's by then.
        self._lock = threading.Lock()
        self._restart_at = dict.fromkeys(self.programs, 0.0)
        self._stopping = threading.Event()
        self._released = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopping.wait(_TICK_SECONDS):
                with self._lock:
                    self._restart_ended()
        except BaseException as exc:  # noqa: BLE001 - the main thread raises it
            self.error = exc
        self._released.wait()

    def _restart_ended(self) -> None:
        for name, program in self.programs.items():
            if program.running:
                continue
            if self._restart_at[name] == 0.0 and program.exit_code is not None:
                self.exits.append(Exit(name, program.exit_code, time.time()))
                self._tidy_up(name)
                self._restart_at[name] = time.monotonic() + _RESTART_SECONDS
            elif time.monotonic() >= self._restart_at[name]:
                program.start()
                self._pids[name] = program.pid
                self._restart_at[name] = 0.0

    def _tidy_up(self, name: str) -> None:
        """Kill what a dead API left behind, as a container's or a unit's end does: it would keep the port for 20 s.

        The child of a dead worker is left alone: it goes on with its message, which is worse for what is tested here.
        """
        if name == "api":
            for pid in processes.in_session(self._pids[name]) & marked(self._mark):
                _send(pid, signal.SIGKILL)

    def check(self) -> None:
        """Raise what went wrong in this thread."""
        if self.error is not None:
            raise self.error

    def all_running(self) -> bool:
        """Return whether none is waiting to be started."""
        with self._lock:
            return all(program.running for program in self.programs.values())

    def signal(self, name: str, number: signal.Signals, variant: str) -> set[int]:
        """Send a signal to a process (`parent`), to one of its children (`child`) or to both (`all`).

        Returns the processes that got it: none, if there was none at this moment.
        """
        with self._lock:
            program = self.programs[name]
            if not program.running:
                return set()
            children = processes.in_session(program.pid)
            chosen = {"parent": {program.pid}, "child": set(sorted(children)[:1]), "all": {program.pid, *children}}
            return {pid for pid in chosen[variant] if _send(pid, number)}

    def resume(self, pids: set[int]) -> None:
        """Continue stopped processes."""
        with self._lock:
            for pid in pids:
                _send(pid, signal.SIGCONT)

    def has_ended(self, name: str, pid: int) -> bool:
        """Return whether this process of that name is gone."""
        with self._lock:
            program = self.programs[name]
            return not program.running or program.pid != pid

    def stop(self, seconds: float) -> None:
        """Restart nothing more, ask all processes to end, and kill those that remain after so many seconds."""
        self._stopping.set()
        with self._lock:
            running = [program for program in self.programs.values() if program.running]
            for program in running:
                _send(program.pid, signal.SIGCONT)
                _send(program.pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for program in running:
            with contextlib.suppress(TimeoutError):
                program.wait(max(0.0, deadline - time.monotonic()))
            program.kill(with_children=True)
        self._released.set()
        if self.ident is not None:
            self.join()


def kill_marked(mark: str) -> None:
    """Kill -9 every process that carries a run's mark: children too whose parents were killed."""
    for pid in marked(mark):
        _send(pid, signal.SIGKILL)


def marked(mark: str) -> set[int]:
    """Return the processes that carry a run's mark in their environment."""
    line = f"{MARK_NAME}={mark}".encode()
    return {pid for pid in other_processes() if line in _environment(pid)}


def other_processes() -> list[int]:
    """Return the numbers of all processes but this one; on other systems than Linux nothing is known."""
    proc = Path("/proc")
    numbers = [int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()] if proc.is_dir() else []
    return [pid for pid in numbers if pid != os.getpid()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
