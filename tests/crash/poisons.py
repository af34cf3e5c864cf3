"""Tasks that kill or block their worker. OUTBOX_TASKS=consumer.tasks,tests.crash.poisons registers them."""

import os
import resource
import signal
import threading
from collections.abc import Mapping
from dataclasses import make_dataclass
from typing import NoReturn

from consumer.task import Context, Task
from shared.outbox import CRITICAL, Message

_FOR_EVER = threading.Event()
_TOO_MUCH = 1 << 40


def _exit(_context: Context, _messages: Mapping[int, Message]) -> NoReturn:
    """Exit like a crash in a C extension."""
    os._exit(1)


def _be_killed(_context: Context, _messages: Mapping[int, Message]) -> NoReturn:
    """Die like a victim of the kernel's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL was survived")


def _eat_memory(_context: Context, _messages: Mapping[int, Message]) -> NoReturn:
    """Allocate more memory than there is."""
    resource.setrlimit(resource.RLIMIT_AS, (_TOO_MUCH, _TOO_MUCH))
    bytearray(_TOO_MUCH)
    raise AssertionError("there was so much memory")


def _hang(_context: Context, _messages: Mapping[int, Message]) -> NoReturn:
    """Wait forever."""
    while True:
        _FOR_EVER.wait()


POISONS = {"exit": _exit, "killed": _be_killed, "memory": _eat_memory, "hang": _hang}


def _message(name: str) -> type[Message]:
    names = {"task": f"task:{name}", "queue": CRITICAL, "destination": "mail"}
    return make_dataclass(name, [("username", str)], bases=(Message,), namespace=names, frozen=True)


TASKS = [Task(_message(name), prepare=prepare, timeout_seconds=1) for name, prepare in POISONS.items()]
