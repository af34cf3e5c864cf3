"""Once imported, it sends this process SIGTERM directly before the process replaces itself by another program."""

import os
import signal
import time
from collections.abc import Sequence
from typing import NoReturn

_execv = os.execv


def _execv_after_a_signal(path: str, argv: Sequence[str]) -> NoReturn:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)  # any thread that the signal may reach has it now
    _execv(path, argv)


os.execv = _execv_after_a_signal
