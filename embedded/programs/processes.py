"""Find the processes that belong to a program, from /proc; on other systems none are found."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PROC = Path("/proc")
_PAUSE_SECONDS = 0.01


def in_folder(folder: Path, name: str) -> set[int]:
    """Return the processes of that name whose working directory is the folder."""
    wanted = str(folder.resolve())
    found = set()
    for process in _all():
        # Processes of other users cannot be read, and a process may end meanwhile. Neither is one of ours.
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() == name and str((process / "cwd").readlink()) == wanted:
                found.add(int(process.name))
    return found


def in_session(leader: int) -> set[int]:
    """Return the living processes of the session that the leader opened, without the leader."""
    found = set()
    for process in _all():
        with contextlib.suppress(OSError):
            state, session = _state_and_session(process)
            if session == leader and state != "Z" and int(process.name) != leader:
                found.add(int(process.name))
    return found


def kill_session(leader: int) -> None:
    """Kill the remaining processes (-9) of a session whose leader this process started."""
    for pid in in_session(leader):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until_none(find: Callable[[], set[int]], timeout: float) -> set[int]:
    """Wait until find() finds nothing, and return what it still finds after the timeout."""
    deadline = time.monotonic() + timeout
    while found := find():
        if time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_SECONDS)
    return found


def _all() -> Iterator[Path]:
    if _PROC.is_dir():
        yield from (entry for entry in _PROC.iterdir() if entry.name.isdecimal())


def _state_and_session(process: Path) -> tuple[str, int]:
    # "pid (name) state ppid pgrp session …": a name may contain spaces and parentheses.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[3])
