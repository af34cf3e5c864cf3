"""The URL of a webhook endpoint: parsed once, for the check when it is added and for each connection."""

import re
from dataclasses import dataclass, field
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from shared.errors import OutboxError

LONGEST_URL: Final = 2000

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_FIRST_FREE_PORT: Final = 1024
"""Ports below this one belong to other protocols, such as SMTP and Redis' neighbours."""

_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_LONGEST_NAME: Final = 253
_IPV6: Final = re.compile(r"[0-9a-f:.]{2,45}")


class UnusableUrlError(OutboxError):
    """Why a URL cannot be an endpoint. The text does not repeat the URL, which may contain a token."""


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """The parts of an endpoint's URL.

    Attributes:
        scheme: https, or http, which is used for networks of WEBHOOK_ALLOWED_NETWORKS alone.
        host: the name or address, in lower case; an IPv6 address without brackets.
        port: the port.
        target: path and query. They may contain a token.

    """

    scheme: Literal["https", "http"]
    host: str
    port: int
    target: str = field(repr=False)

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host.rstrip(".")
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: what logs, terminals and pages may show."""
        return f"{self.scheme}://{self.host_header}"


def parse_webhook_url(url: str) -> WebhookUrl:
    """Return the parts of a URL. Raises UnusableUrlError."""
    if len(url) > LONGEST_URL:
        raise UnusableUrlError(f"the URL is longer than {LONGEST_URL} characters")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise UnusableUrlError(
            "the URL contains a blank, a backslash, a control character or a letter outside ASCII:"
            " write it percent-encoded, and a name in its xn-- form"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UnusableUrlError("the URL cannot be parsed") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise UnusableUrlError("the URL has to begin with https://")
    if "#" in url:
        raise UnusableUrlError("the URL has a fragment (#…), which is never sent")
    if "@" in parts.netloc:
        raise UnusableUrlError("the URL contains a user or a password: put a token into the path, or use the signature")
    scheme = cast("Literal['https', 'http']", parts.scheme)
    port = _DEFAULT_PORTS[scheme] if port is None else port
    if port not in _DEFAULT_PORTS.values() and port < _FIRST_FREE_PORT:
        raise UnusableUrlError(f"the port has to be 443, 80, or {_FIRST_FREE_PORT} and above")
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    return WebhookUrl(scheme, _host(parts.netloc, parts.hostname), port, target)


def _host(netloc: str, hostname: str | None) -> str:
    host = hostname or ""
    is_bracketed = netloc.startswith("[")
    is_usable = _IPV6.fullmatch(host) if is_bracketed else _NAME.fullmatch(host) and len(host) <= _LONGEST_NAME
    if not is_usable:
        raise UnusableUrlError("the URL has no usable host")
    return host
