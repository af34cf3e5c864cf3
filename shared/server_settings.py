"""What the environment says to gunicorn: where it listens, and how many processes it starts.

gunicorn.conf.py reads them, and `doctor`, since gunicorn itself ends with a traceback at a WEB_CONCURRENCY that is no
number, before it reads any file of ours.
"""

import os
from typing import Final

from shared.errors import SettingsError

_LARGEST_PORT: Final = 65_535
_MOST_PROCESSES: Final = 1000


def read_port() -> int:
    """Read PORT. Raises SettingsError when it is malformed."""
    return _whole_number("PORT", "8080", _LARGEST_PORT)


def read_web_concurrency() -> int:
    """Read WEB_CONCURRENCY, the number of processes. Raises SettingsError when it is malformed.

    gunicorn would start with none, listen, and answer nobody.
    """
    return _whole_number("WEB_CONCURRENCY", "2", _MOST_PROCESSES)


def check_server_settings() -> None:
    """Raise SettingsError naming each of them that is malformed."""
    problems: dict[str, list[str]] = {}
    for read in (read_port, read_web_concurrency):
        try:
            read()
        except SettingsError as exc:
            problems |= exc.problems
    if problems:
        raise SettingsError(problems)


def _whole_number(name: str, default: str, largest: int) -> int:
    text = os.environ.get(name, default)
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= largest):
        raise SettingsError({name: [f"has to be a whole number from 1 to {largest}."]})
    return int(text)
