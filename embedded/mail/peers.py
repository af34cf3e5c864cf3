"""Find the user at the other end of a local connection, from /proc; on other systems no user is found."""

import os
import struct
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

# The kernel's lists of sockets, and the bytes in front of an IPv4 address there: a client may write it as an IPv6 one.
_CONNECTIONS = ((Path("/proc/net/tcp"), b""), (Path("/proc/net/tcp6"), bytes(10) + b"\xff\xff"))
# Behind both addresses of a line, as in the kernel's tcp_ipv4.c: state, queues, timer, retransmits, user.
_USER = 4


def may_be_served(client: tuple[str, int], server: tuple[str, int]) -> bool:
    """Return whether this user or root opened the connection; True if the system does not report who did.

    Args:
        client: the IPv4 address and port that the connection comes from.
        server: the address and port that it goes to.

    """
    known = [(file, prefix) for file, prefix in _CONNECTIONS if file.exists()]
    users = {_user_of(client, server, file, prefix) for file, prefix in known}
    return not known or bool(users & {os.geteuid(), 0})


def _user_of(client: tuple[str, int], server: tuple[str, int], connections: Path, prefix: bytes) -> int | None:
    """Return the number of the user who opened the connection; None if the file does not list it."""
    with suppress(OSError):
        _, _, behind = connections.read_text().partition(f" {_written(client, prefix)} {_written(server, prefix)} ")
        if behind:
            return int(behind.split(maxsplit=_USER + 1)[_USER])
    return None


def _written(address: tuple[str, int], prefix: bytes) -> str:
    """Return an address as the kernel prints it: each four bytes as a number of this machine's order, in hex."""
    host, port = address
    octets = prefix + IPv4Address(host).packed
    numbers = struct.unpack(f"={len(octets) // 4}I", octets)
    return f"{''.join(f'{number:08X}' for number in numbers)}:{port:04X}"
