"""Who the client is: the other end of the connection, or whom the proxies in front name, as far as they are trusted.

Each proxy writes the address that its request came from behind what its client sent. So only the entries that the
trusted proxies wrote are believed, counted from the end; the client may have made up all that stands before them.
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
# With a client's port, or what a proxy writes in the place of one (RFC 7239, section 6).
_WITH_PORT: Final = re.compile(r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[^\[\]]+)\])(?::[A-Za-z0-9._-]+)?")
# Parameters as RFC 7239 has them; and addresses without the quotes that it asks for, as proxies write them.
_PARAMETER: Final = re.compile(
    r'(?P<name>[A-Za-z0-9!#$%&\'*+.^_`|~-]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[A-Za-z0-9!#$%&\'*+.^_`|~:\[\]-]+))'
)
_BLANKS: Final = " \t"
_IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks.

    Attributes:
        address: None where it is not known: over a Unix socket, or where what a trusted proxy wrote cannot be read.
        is_forwarded: whether a trusted proxy named it; otherwise it is the other end of the connection.
        ignored: the header that names a client and that nothing believes, so that the other end is likely a proxy.

    """

    address: Address | None
    is_forwarded: bool = False
    ignored: str | None = None

    @property
    def network(self) -> str | None:
        """Return what counts as one client: an IPv4 address, or an IPv6 /64, whose addresses its owner chooses freely.

        None where the address is not known: all such clients count as one.
        """
        if isinstance(self.address, IPv6Address):
            return str(IPv6Network((int(self.address), _IPV6_PREFIX), strict=False))
        return None if self.address is None else str(self.address)


def client_of(request: Request) -> Client:
    """Return who asks, as far as the proxies in front are trusted."""
    client: Client = request.environ[_CLIENT]
    return client


class Forwarding:
    """Tells the application whom the trusted proxies speak for, and over which scheme and host they were asked."""

    def __init__(self, app: "WSGIApplication", trusted_proxies: int, header: ForwardingHeader) -> None:
        """Wrap the application.

        Args:
            app: the application.
            trusted_proxies: how many proxies are in front of it, none to believe no header.
            header: the one in which they name the client.

        """
        self._app = app
        self._count = trusted_proxies
        self._reads_forwarded = header == FORWARDED

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
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
        """Return what the trusted proxies say, nothing where there are fewer than are trusted."""
        if not self._count:
            return {}
        named: dict[str, str] = {}
        clients = _entries(environ, "X-Forwarded-For")
        if len(clients) >= self._count:
            named["for"] = clients[-self._count]
        for name, header in (("proto", "X-Forwarded-Proto"), ("host", "X-Forwarded-Host")):
            # Many proxies overwrite these where they extend the other, so that there are fewer.
            if given := _entries(environ, header)[-self._count :]:
                named[name] = given[0]
        return named

    def _forwarded(self, environ: "WSGIEnvironment") -> Mapping[str, str]:
        """Return the same of the header of RFC 7239, in which a client that is not named is one that cannot be read."""
        text = environ.get(_variable("Forwarded"))
        if not self._count or text is None:
            return {}
        elements = parse_forwarded(text)
        if elements is None:
            return {"for": ""}
        return {"for": "", **elements[-self._count]} if len(elements) >= self._count else {}


def read_address(text: str) -> Address | None:
    """Return the address in a text, with or without port, brackets and IPv6 around an IPv4 one; None without one."""
    if found := _WITH_PORT.fullmatch(text):
        text = found["v4"] or found["v6"]
    try:
        # A zone says by which of its own interfaces a proxy was reached.
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def parse_forwarded(text: str) -> list[dict[str, str]] | None:
    """Return the elements of a Forwarded header (RFC 7239), None if any of it is malformed.

    Malformed as a whole, since a client may send the first half of a quoted text: what a proxy wrote behind it would
    then be a part of that text.
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
    """Return the entries of a list; these headers know no quotes, in which a client could hide what a proxy writes."""
    text = environ.get(_variable(header))
    return [] if text is None else [entry.strip(_BLANKS) for entry in text.split(",")]


def _variable(header: str) -> str:
    return f"HTTP_{header.upper().replace('-', '_')}"
