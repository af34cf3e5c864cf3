"""Handle SIGINT, SIGTERM and SIGHUP in `up` and `demo`."""

import signal
from types import FrameType
from typing import Final, NoReturn

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_AGAIN_SECONDS: Final = 1.0


def interrupt_on_signals() -> None:
    """Make each signal that asks to stop interrupt whatever is running, including a start, as Ctrl-C does."""
    for number in _STOPPING:
        signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Ignore further signals while everything stops."""
    _ignore()
    if signal.getsignal(signal.SIGALRM) is _interrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _ignore() -> None:
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # People press Ctrl-C twice: the second one must not interrupt the stop.
    _ignore()
    # Python drops an exception in a finalizer or in a hook of fork, so it is raised until it has an effect.
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    raise KeyboardInterrupt
