"""Once imported, it sends this process SIGTERM directly before the process replaces itself by another program."""

import os
import signal
import time
from typing import Any, NoReturn

_execv = os.execv


def _execv_after_a_signal(path: str, argv: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)  # any thread that the signal may reach has it now
    _execv(path, argv)


os.execv = _execv_after_a_signal  # type: ignore[assignment] # the project calls it with a str alone
