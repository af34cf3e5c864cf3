"""Wait for running programs, fail when one ends or stalls, and measure their processor time and memory."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import psutil
import psycopg

from bench.environment.servers import Sink
from bench.errors import ContenderFailedError
from embedded.errors import tail
from embedded.programs.program import Program

_POLL_SECONDS: Final = 0.005
_STALLED_SECONDS: Final = 60.0


def wait_for_mails(sink: Sink, programs: Sequence[Program], mails: int) -> None:
    """Wait until this many mails were accepted. Raises ContenderFailedError when a program ends or none arrives."""
    seen, seen_at = -1, time.monotonic()
    while (count := sink.count()) < mails:
        if count > seen:
            seen, seen_at = count, time.monotonic()
        watch(programs, f"{count} of {mails} mails", seen_at)


def wait_until_acknowledged(connection: psycopg.Connection[Any], programs: Sequence[Program]) -> None:
    """Wait until no message is unfinished. Raises ContenderFailedError as wait_for_mails does."""
    began = time.monotonic()
    while connection.execute("SELECT FROM outbox LIMIT 1").rowcount:
        watch(programs, "unfinished messages", began)


def watch(programs: Sequence[Program], what: str, moved_at: float) -> None:
    """Wait a moment. Raises ContenderFailedError when a program has ended, or nothing has moved for a minute."""
    time.sleep(_POLL_SECONDS)
    for program in programs:
        if not program.running:
            raise ContenderFailedError(f"{program.name} ended ({program.exit_code})\n{tail(program.command.log_file)}")
    if time.monotonic() - moved_at > _STALLED_SECONDS:
        log_file = programs[-1].command.log_file
        raise ContenderFailedError(f"{what}, and nothing moved for {_STALLED_SECONDS:g} s\n{tail(log_file)}")


def cpu_seconds(programs: Sequence[Program]) -> float:
    """Return the processor time of the programs and their children, also of children that have ended."""
    total = 0.0
    for process in _family(programs):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_mib(programs: Sequence[Program]) -> float:
    """Return the resident memory of the programs and their children in MiB; pages that they share count for each."""
    total = 0
    for process in _family(programs):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 2**20


def _family(programs: Sequence[Program]) -> list[psutil.Process]:
    parents = [psutil.Process(program.pid) for program in programs]
    return parents + [child for parent in parents for child in parent.children(recursive=True)]
