"""Determine the client's address: the other end of the connection, or what trusted proxies in front name.

Each proxy appends the address that its request came from to what its client sent. So only the entries that trusted
proxies wrote are believed, counted from the end. The client may have invented everything before them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

from flask import Request

from shared.settings.api import FORWARDED, ForwardingHeader

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Address = IPv4Address | IPv6Address

_CLIENT: Final = "outbox.client"
_NAMING_A_CLIENT: Final = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
_SCHEMES: Final = frozenset({"http", "https"})
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
# With a port, or what a proxy writes in its place (RFC 7239, section 6).
_WITH_PORT: Final = re.compile(r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[^\[\]]+)\])(?::[A-Za-z0-9._-]+)?")
# The parameters of RFC 7239, and addresses without the quotes that it requires, as some proxies write them.
_PARAMETER: Final = re.compile(
    r'(?P<name>[A-Za-z0-9!#$%&\'*+.^_`|~-]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[A-Za-z0-9!#$%&\'*+.^_`|~:\[\]-]+))'
)
_BLANKS: Final = " \t"
_IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a request.

    Attributes:
        address: the IP address. None where it is not known: over a Unix socket, or where a trusted proxy's entry is
            unreadable.
        is_forwarded: a trusted proxy named the address; else it is the other end of the connection.
        ignored: the header that names a client and is not believed. The other end is then probably a proxy.

    """

    address: Address | None
    is_forwarded: bool = False
    ignored: str | None = None

    @property
    def network(self) -> str | None:
        """Return the network that counts as one client: an IPv4 address or an IPv6 /64. None where it is not known.

        The owner of a /64 chooses its addresses freely.
        """
        if isinstance(self.address, IPv6Address):
            return str(IPv6Network((int(self.address), _IPV6_PREFIX), strict=False))
        return None if self.address is None else str(self.address)


def client_of(request: Request) -> Client:
    """Return the client of a request, as far as proxies are trusted."""
    client: Client = request.environ[_CLIENT]
    return client


class Forwarding:
    """WSGI middleware that determines the client, the scheme and the host from the headers of trusted proxies."""

    def __init__(self, app: "WSGIApplication", trusted_proxies: int, header: ForwardingHeader) -> None:
        """Wrap the application.

        Args:
            app: the application.
            trusted_proxies: how many proxies are in front; 0 to believe no header.
            header: the header in which they name the client.

        """
        self._app = app
        self._count = trusted_proxies
        self._reads_forwarded = header == FORWARDED

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Handle a request."""
        named = self._forwarded(environ) if self._reads_forwarded else self._x_forwarded(environ)
        if "for" in named:
            client = Client(read_address(named["for"]), is_forwarded=True)
        else:
            given = next((name for name in _NAMING_A_CLIENT if _variable(name) in environ), None)
            client = Client(read_address(environ.get("REMOTE_ADDR", "")), ignored=given)
        if (scheme := named.get("proto", "").lower()) in _SCHEMES:
            environ["wsgi.url_scheme"] = scheme
        if _HOST.fullmatch(host := named.get("host", "")):
            environ["HTTP_HOST"] = host
        environ[_CLIENT] = client
        environ["REMOTE_ADDR"] = "" if client.address is None else str(client.address)
        return self._app(environ, start_response)

    def _x_forwarded(self, environ: "WSGIEnvironment") -> Mapping[str, str]:
        """Return what the trusted proxies say; nothing where fewer proxies wrote than are trusted."""
        if not self._count:
            return {}
        named: dict[str, str] = {}
        clients = _entries(environ, "X-Forwarded-For")
        if len(clients) >= self._count:
            named["for"] = clients[-self._count]
        for name, header in (("proto", "X-Forwarded-Proto"), ("host", "X-Forwarded-Host")):
            # Many proxies overwrite these headers instead of appending, so there may be fewer entries.
            if given := _entries(environ, header)[-self._count :]:
                named[name] = given[0]
        return named

    def _forwarded(self, environ: "WSGIEnvironment") -> Mapping[str, str]:
        """Return the same for a Forwarded header (RFC 7239). A client that it does not name is unreadable."""
        text = environ.get(_variable("Forwarded"))
        if not self._count or text is None:
            return {}
        elements = parse_forwarded(text)
        if elements is None:
            return {"for": ""}
        return {"for": "", **elements[-self._count]} if len(elements) >= self._count else {}


def read_address(text: str) -> Address | None:
    """Return the address in a text, with or without port and brackets; None without one.

    An IPv4 address that is mapped into IPv6 becomes IPv4.
    """
    if found := _WITH_PORT.fullmatch(text):
        text = found["v4"] or found["v6"]
    try:
        # A zone names one of the proxy's own interfaces.
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def parse_forwarded(text: str) -> list[dict[str, str]] | None:
    """Return the elements of a Forwarded header (RFC 7239); None if any part is malformed.

    One malformed part makes all of it malformed: a client may send the first half of a quoted string, and what a proxy
    appends would then be inside that string.
    """
    elements: list[dict[str, str]] = [{}]
    at = 0
    while True:
        at = _after_blanks(text, at)
        if found := _PARAMETER.match(text, at):
            name, quoted = found["name"].lower(), found["quoted"]
            if name in elements[-1]:
                return None
            elements[-1][name] = found["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            at = _after_blanks(text, found.end())
        if at == len(text):
            return [element for element in elements if element]
        if text[at] == ",":
            elements.append({})
        elif text[at] != ";":
            return None
        at += 1


def _after_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at


def _entries(environ: "WSGIEnvironment", header: str) -> list[str]:
    """Return the entries of a list header.

    These headers have no quotes in which a client could hide a proxy's entry.
    """
    text = environ.get(_variable(header))
    return [] if text is None else [entry.strip(_BLANKS) for entry in text.split(",")]


def _variable(header: str) -> str:
    return f"HTTP_{header.upper().replace('-', '_')}"
