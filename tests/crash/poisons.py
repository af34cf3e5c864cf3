"""Tasks that are the end of whoever works on them. `launch --import tests.crash.poisons` registers them."""

import os
import resource
import signal
import threading
from typing import Any, NoReturn

from consumer.registry import TASKS
from consumer.task import Preparation, Task, UserPayload

_FOR_EVER = threading.Event()
_TOO_MUCH = 1 << 40


def _exit(_preparation: Preparation, _payload: dict[str, Any]) -> NoReturn:
    """Leave as a crash in a C extension does."""
    os._exit(1)


def _be_killed(_preparation: Preparation, _payload: dict[str, Any]) -> NoReturn:
    """Die as the kernel's out-of-memory killer wants it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL was survived")


def _eat_memory(_preparation: Preparation, _payload: dict[str, Any]) -> NoReturn:
    """Ask for more memory than there is."""
    resource.setrlimit(resource.RLIMIT_AS, (_TOO_MUCH, _TOO_MUCH))
    bytearray(_TOO_MUCH)
    raise AssertionError("there was so much memory")


def _hang(_preparation: Preparation, _payload: dict[str, Any]) -> NoReturn:
    """Wait for what never comes."""
    while True:
        _FOR_EVER.wait()


POISONS = {"exit": _exit, "killed": _be_killed, "memory": _eat_memory, "hang": _hang}
TASKS.update({f"task:{name}": Task(f"task:{name}", UserPayload, prepare) for name, prepare in POISONS.items()})
