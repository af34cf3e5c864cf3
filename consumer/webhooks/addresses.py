"""The addresses that a webhook may be sent to: public ones, and those that the operator allows."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from shared.settings.parsing import Network

_NAT64: Final = IPv6Network("64:ff9b::/96")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_PUBLIC_BY_NAME_ONLY: Final = (
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv6Network("2002::/16"),  # 6to4, which contains any IPv4 address
    IPv6Network("2001::/23"),  # protocols, such as Teredo, which contains one too
)
"""Python's is_global counts these as public."""


class AllowedAddresses:
    """The addresses that may be connected to."""

    def __init__(self, networks: tuple[Network, ...] = ()) -> None:
        """Allow public addresses over TLS, and those of these networks with and without it."""
        self._networks = networks

    def allow(self, address: str, *, is_encrypted: bool) -> bool:
        """Return whether this address, as getaddrinfo or a socket names it, may be connected to."""
        try:
            given = ip_address(address)
        except ValueError:
            return False
        if isinstance(given, IPv6Address) and given.scope_id is not None:
            return False
        unwrapped = _unwrapped(given)
        if any(unwrapped in network for network in self._networks):
            return True
        return is_encrypted and _is_public(unwrapped)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address inside of a mapped or NAT64 address; any other address as it is."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    is_reachable = address.is_global and not address.is_multicast
    return is_reachable and not any(address in network for network in _PUBLIC_BY_NAME_ONLY)
