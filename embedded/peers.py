"""Who is at the other end of a connection on this machine: read from /proc, so on Linux; elsewhere nobody is known."""

import os
import struct
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

_CONNECTIONS = Path("/proc/net/tcp")
# Columns of that file, as in the kernel's tcp_ipv4.c.
_LOCAL, _REMOTE, _USER = 1, 2, 7


def may_be_served(client: tuple[str, int], server: tuple[str, int]) -> bool:
    """Return whether this user or root opened the connection; True where the system does not say who did.

    Args:
        client: the address and port that the connection comes from.
        server: the address and port that it leads to; IPv4, as the client's.

    """
    if not _CONNECTIONS.exists():
        return True
    return _user_of(client, server) in {os.geteuid(), 0}


def _user_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Return the number of the user who opened the connection; None if it is closed by now."""
    wanted = [_written(client), _written(server)]
    with suppress(OSError):
        for line in _CONNECTIONS.read_text().splitlines()[1:]:
            columns = line.split()
            if columns[_LOCAL : _REMOTE + 1] == wanted:
                return int(columns[_USER])
    return None


def _written(address: tuple[str, int]) -> str:
    """Return an address as the kernel prints it: the bytes of its number as this machine orders them, in hex."""
    host, port = address
    [number] = struct.unpack("=I", IPv4Address(host).packed)
    return f"{number:08X}:{port:04X}"
