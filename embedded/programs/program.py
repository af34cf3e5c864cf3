"""A child process that dies with its parent."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import AlreadyRunningError, NotRunningError, ProgramFailedError
from embedded.programs import processes
from embedded.programs.accounts import Account

_PR_SET_PDEATHSIG = 1
# Looked up here, because nothing may be loaded between fork and exec.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

_READY_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Command:
    """The command to run, with its complete environment: nothing is inherited."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str]
    cwd: Path
    log_file: Path
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM


class Program:
    """A child process in a session of its own, so that Ctrl-C at the terminal reaches only its parent.

    It gets a signal to stop when the thread that started it ends, even by kill -9. Start it from a thread that lives
    as long as the process is needed.
    """

    def __init__(self, command: Command) -> None:
        """Nothing is started yet."""
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """Its name in texts for people."""
        return self.command.name

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the running process."""
        if self._process is None or self._process.poll() is not None:
            raise NotRunningError(f"{self.name} is not running")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the last run ended: negative for a signal, None while running or before the first start."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process. Its output is appended to the log."""
        if self.running:
            raise AlreadyRunningError(f"{self.name} is already running")
        command = self.command
        command.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        command, account = self.command, self.command.account
        with command.log_file.open("ab") as log:
            return subprocess.Popen(
                [str(part) for part in command.argv],
                cwd=command.cwd,
                env=dict(command.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=dying_with(os.getpid(), command.stop_signal),  # noqa: PLW1509  # one call, looked up before
            )

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its exit code. Raises TimeoutError."""
        if self._process is None:
            raise NotRunningError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout} s") from None

    def stop(self, grace: float = 10.0, *, with_signal: signal.Signals | None = None) -> int | None:
        """Ask it to stop, kill it and its children after the grace period, and return its exit code."""
        process = self._process
        if process is None or process.poll() is not None:
            return self.exit_code
        process.send_signal(with_signal or self.command.stop_signal)
        try:
            return process.wait(grace)
        except subprocess.TimeoutExpired:
            return self.kill(with_children=True)

    def kill(self, *, with_children: bool = False) -> int | None:
        """Kill it (-9) and wait until it is gone. Its children are killed only on request."""
        process = self._process
        if process is None or process.poll() is not None:
            return self.exit_code
        process.kill()
        if with_children:
            # Before wait(): until then its number is taken, so the session cannot be another one.
            processes.kill_session(process.pid)
        return process.wait()

    def restart(self) -> None:
        """Stop it if it runs, then start it."""
        self.stop()
        self.start()

    def wait_ready(self, is_ready: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait until is_ready() is true. Raises ProgramFailedError if the process ends first, or after the timeout."""
        deadline = time.monotonic() + timeout
        while not is_ready():
            if not self.running:
                raise ProgramFailedError(self.name, f"ended with exit code {self.exit_code}", self.command.log_file)
            if time.monotonic() > deadline:
                raise ProgramFailedError(self.name, f"was not ready after {timeout:g} s", self.command.log_file)
            time.sleep(_READY_PAUSE_SECONDS)


def dying_with(parent_pid: int, death_signal: signal.Signals) -> Callable[[], None]:
    """Return the function that a child runs before exec: it requests a signal at its parent's death from Linux.

    Without it, a test run that is killed leaves servers behind that hold their ports and memory. Other systems have
    no such call; there only stop() ends the children.
    """

    def ask_for_death_signal() -> None:
        if _PRCTL is None:
            return
        _PRCTL(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent_pid:
            # The parent died between the fork and the call, so no signal will come.
            os._exit(1)

    return ask_for_death_signal
