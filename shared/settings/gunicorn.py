"""The settings of gunicorn: where it listens, how many processes it starts, how long it keeps connections.

gunicorn.conf.py and `doctor` read them. If WEB_CONCURRENCY is not a number, gunicorn itself ends with a traceback
before it reads any file of ours, so only `doctor` can name the variable then.
"""

import os
import socket
from typing import Final

from shared.errors import SettingsError

_LARGEST_PORT: Final = 65_535
_MOST_PROCESSES: Final = 1000
_LONGEST_KEEPALIVE_SECONDS: Final = 3600


def read_port() -> int:
    """Read PORT. Raises SettingsError when it is malformed."""
    return _whole_number("PORT", "8080", _LARGEST_PORT)


def read_web_concurrency() -> int:
    """Read WEB_CONCURRENCY, the number of processes. Raises SettingsError when it is malformed.

    With 0, gunicorn would listen and answer nobody.
    """
    return _whole_number("WEB_CONCURRENCY", "2", _MOST_PROCESSES)


def read_keepalive_seconds() -> int:
    """Read KEEPALIVE_SECONDS, for how long an idle connection is kept. Raises SettingsError when it is malformed.

    It has to be longer than clients and proxies keep it, so that they close it first. If we close it, they may be
    sending their next request over it at that moment.
    """
    return _whole_number("KEEPALIVE_SECONDS", "75", _LONGEST_KEEPALIVE_SECONDS, smallest=0)


def listen_addresses(port: int) -> list[str]:
    """Return the addresses to bind to: IPv6 and IPv4, or IPv4 alone where there is no IPv6."""
    ipv4, ipv6 = f"0.0.0.0:{port}", f"[::]:{port}"
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            takes_ipv6_alone = probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            probe.bind(("::", 0))
    except OSError:
        return [ipv4]
    # Depends on the kernel's setting net.ipv6.bindv6only; its default is one socket for both.
    return [ipv4, ipv6] if takes_ipv6_alone else [ipv6]


def check_server_settings() -> None:
    """Raise SettingsError naming each malformed variable of this module."""
    problems: dict[str, list[str]] = {}
    for read in (read_port, read_web_concurrency, read_keepalive_seconds):
        try:
            read()
        except SettingsError as exc:
            problems |= exc.problems
    if problems:
        raise SettingsError(problems)


def _whole_number(name: str, default: str, largest: int, *, smallest: int = 1) -> int:
    text = os.environ.get(name, default)
    if not (text.isascii() and text.isdecimal() and smallest <= int(text) <= largest):
        raise SettingsError({name: [f"has to be a whole number from {smallest} to {largest}."]})
    return int(text)
