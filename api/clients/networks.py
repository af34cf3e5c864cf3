"""The network of a client, which counts as one: an IPv4 address, or an IPv6 /64, whose addresses are free to choose."""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

_IPV6_PREFIX: Final = 64


def client_network(address: str | None) -> str | None:
    """Return the network of an address; None where it is not known: all such clients count as one.

    Args:
        address: the client's, as the proxies are believed; None when it came over a Unix socket.

    """
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ip_network((int(parsed), _IPV6_PREFIX), strict=False))
        parsed = parsed.ipv4_mapped
    return str(parsed)
