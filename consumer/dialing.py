"""Open a socket to a server by name, with a time limit for every step."""

import errno
import socket
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Any, Final

_OWN_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_KEEPALIVES: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds until the first probe, seconds between probes, their number: a dead peer is noticed within a minute."""


FoundAddress = tuple[Any, ...]
"""An entry of getaddrinfo's answer."""


class OutOfResourcesError(Exception):
    """This process or machine lacks memory, files or threads. The server is not the cause."""


def connected(host: str, port: int, step_seconds: float, until: float) -> socket.socket:
    """Connect to the first address of a name that answers.

    Raises:
        OSError: none answers in time.
        OutOfResourcesError: this process can open no socket.

    """
    return connected_to(look_up(host, port, min(step_seconds, until - monotonic())), step_seconds, until)


def connected_to(addresses: Iterable[FoundAddress], step_seconds: float, until: float) -> socket.socket:
    """Connect to the first of these addresses that answers.

    Raises:
        OSError: none answers in time.
        OutOfResourcesError: this process can open no socket.

    """
    failure: OSError = TimeoutError("no time left to connect")
    for family, kind, protocol, _, address in addresses:
        remaining = min(step_seconds, until - monotonic())
        if remaining <= 0:
            break
        try:
            candidate = socket.socket(family, kind, protocol)
        except OSError as exc:
            failure = exc
            continue
        candidate.settimeout(remaining)
        try:
            candidate.connect(address)
        except OSError as exc:
            candidate.close()
            failure = exc
        else:
            candidate.settimeout(step_seconds)
            # The last dot is a packet of its own. Nagle's algorithm would hold it until the server's delayed
            # acknowledgement of the content: 40 ms a mail.
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _enable_keepalives(candidate)
            return candidate
    if failure.errno in _OWN_SHORTAGES:
        raise OutOfResourcesError(failure.strerror) from failure
    raise failure


def _enable_keepalives(sock: socket.socket) -> None:
    """Let the kernel probe a silent peer: a reply may take ten minutes, and a peer without power sends none."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVES.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def look_up(host: str, port: int, seconds: float) -> list[FoundAddress]:
    """Return the addresses of a name, as getaddrinfo does.

    It runs in a thread of its own, which may outlive the call: getaddrinfo has no time limit.

    Raises:
        OSError: the name has no address, or the look-up took too long.
        UnicodeError: it is no name.
        OutOfResourcesError: this process can start no thread.

    """
    found: list[FoundAddress] = []
    errors: list[OSError | UnicodeError] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            errors.append(exc)

    thread = threading.Thread(target=look_up, daemon=True, name="name-look-up")
    try:
        thread.start()
    except RuntimeError as exc:
        raise OutOfResourcesError("no thread for the name lookup") from exc
    thread.join(max(0.0, seconds))
    if errors:
        raise errors[0]
    if not found:
        raise TimeoutError("the name lookup took too long")
    return found
