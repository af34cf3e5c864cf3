"""Handle SIGINT, SIGTERM and SIGHUP in `up` and `demo`."""

import signal
from types import FrameType
from typing import Final, NoReturn

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_AGAIN_SECONDS: Final = 1.0


def interrupt_on_signals() -> None:
    """Let each signal that asks to stop end whatever is being done, as Ctrl-C does, also a start."""
    for number in _STOPPING:
        signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Let nothing interrupt the stopping itself."""
    _ignore()
    if signal.getsignal(signal.SIGALRM) is _interrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _ignore() -> None:
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # One is enough: people press Ctrl-C twice.
    _ignore()
    # Python drops an exception that it meets in a finalizer or in a hook of fork: raise it until somebody stops.
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    raise KeyboardInterrupt
