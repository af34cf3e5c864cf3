"""Find free ports on 127.0.0.1."""

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"

_LOWEST = 10_240
_ATTEMPTS = 500
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# IANA's first dynamic port, for systems that do not report theirs.
_USUAL_FIRST_EPHEMERAL = 49_152

# Not random's shared generator: tests seed it, and two runs would choose the same ports.
_random = random.SystemRandom()


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection in TIME_WAIT does not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(usual: int | None = None) -> int:
    """Return a free port: the usual one if it is free, else a random one.

    The random ones are below the range that the kernel uses for outgoing connections. Inside that range, a client that
    keeps connecting to a stopped server would sometimes get the server's port as its own, connect to itself, and keep
    the server from starting again.
    """
    if usual is not None and is_free(usual):
        return usual
    highest = _first_ephemeral_port() - 1
    for _ in range(_ATTEMPTS):
        port = _random.randint(_LOWEST, highest) if highest > _LOWEST else _port_from_kernel()
        if is_free(port):
            return port
    return _port_from_kernel()


def _first_ephemeral_port() -> int:
    try:
        return int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL_FIRST_EPHEMERAL


def _port_from_kernel() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port
