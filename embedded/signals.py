"""Being told to stop."""

import signal
from types import FrameType
from typing import NoReturn

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals() -> None:
    """Let each signal that asks to stop end whatever is being done, as Ctrl-C does, also a start."""
    for number in _STOPPING:
        signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Let nothing interrupt the stopping itself."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # One is enough: people press Ctrl-C twice.
    ignore_signals()
    raise KeyboardInterrupt
