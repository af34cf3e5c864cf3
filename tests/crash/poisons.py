"""Tasks that kill or block their worker. `launch --import tests.crash.poisons` registers them."""

import os
import resource
import signal
import threading
from collections.abc import Mapping
from typing import NoReturn

from consumer.task import Payload, Preparation, Task, UserPayload
from consumer.tasks.registry import TASKS

_FOR_EVER = threading.Event()
_TOO_MUCH = 1 << 40


def _exit(_preparation: Preparation, _payloads: Mapping[int, Payload]) -> NoReturn:
    """Exit like a crash in a C extension."""
    os._exit(1)


def _be_killed(_preparation: Preparation, _payloads: Mapping[int, Payload]) -> NoReturn:
    """Die like a victim of the kernel's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL was survived")


def _eat_memory(_preparation: Preparation, _payloads: Mapping[int, Payload]) -> NoReturn:
    """Allocate more memory than there is."""
    resource.setrlimit(resource.RLIMIT_AS, (_TOO_MUCH, _TOO_MUCH))
    bytearray(_TOO_MUCH)
    raise AssertionError("there was so much memory")


def _hang(_preparation: Preparation, _payloads: Mapping[int, Payload]) -> NoReturn:
    """Wait forever."""
    while True:
        _FOR_EVER.wait()


POISONS = {"exit": _exit, "killed": _be_killed, "memory": _eat_memory, "hang": _hang}
TASKS.update({f"task:{name}": Task(f"task:{name}", UserPayload(), prepare) for name, prepare in POISONS.items()})
