"""Limits on how often one client may ask, counted in this process's memory.

They protect from crowds; nothing rests on them. A limiter that fails lets the request pass.
"""

import re
import time
from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from flask import Flask, Response, g, request
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from api.limit_bypasses import FAILED, NOT_BELIEVED, UNREADABLE, LimitBypasses, is_forwarded_in_vain
from api.problems import ProblemError
from shared.rate_limits import RateLimits

LIMITED: Final[Mapping[str, str]] = {
    "users.create_user": "signup",
    "pages.sign_up": "signup",
    "verification.show": "verify",
    "verification.use_posted": "verify",
    "resend.ask_again": "resend",
    "pages.send_again": "resend",
    "ops.login": "ops_login",
}
"""The limit that each endpoint counts towards: a form and its address for programs share one."""

# A household or a server gets a whole /64: its single addresses are free to choose.
_IPV6_PREFIX: Final = 64

_WITH_PORT: Final = re.compile(r"(?P<v4>[0-9.]+):[0-9]+|\[(?P<v6>[^\]]+)\](?::[0-9]+)?")


class Standing(NamedTuple):
    """Where a client stands with one limit."""

    name: str
    quota: int
    window_seconds: int
    remaining: int
    reset_seconds: int
    is_over: bool


class RateLimiter:
    """Counts the requests of each client in fixed windows."""

    def __init__(self, limits: RateLimits) -> None:
        """Keep the limits. Counting starts with the first request that is limited."""
        self._limits = limits

    def limits(self, name: str) -> bool:
        """Return whether there is such a limit."""
        return name in self._limits.by_name

    @cached_property
    def _counter(self) -> FixedWindowRateLimiter:
        # Its storage starts threads: not before a fork.
        return FixedWindowRateLimiter(MemoryStorage())

    def count(self, name: str, address: str | None) -> Standing | None:
        """Count a request and tell where its client stands; None for whoever is not limited.

        Args:
            name: the limit.
            address: the client's, None when it came over a Unix socket.

        """
        limit = self._limits.by_name.get(name)
        if limit is None or (client := self._client(address)) is None:
            return None
        is_within = self._counter.hit(limit, name, client)
        reset_at, remaining = self._counter.get_window_stats(limit, name, client)
        reset = max(1, round(reset_at - time.time()))
        return Standing(name, limit.amount, limit.get_expiry(), remaining, reset, is_over=not is_within)

    def _client(self, address: str | None) -> str | None:
        """Give whom the request is counted for, None for nobody."""
        if not address:
            return None
        parsed = _parsed(address)
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        if any(parsed in network for network in self._limits.exempt):
            return None
        if isinstance(parsed, IPv6Address):
            return str(ip_network((parsed, _IPV6_PREFIX), strict=False))
        return str(parsed)


def _parsed(address: str) -> IPv4Address | IPv6Address:
    """Parse an address; some proxies write the client's port behind it. Raises ValueError."""
    if found := _WITH_PORT.fullmatch(address):
        address = found["v4"] or found["v6"]
    return ip_address(address)


def limit_rates(app: Flask, limiter: RateLimiter, bypasses: LimitBypasses) -> None:
    """Refuse what comes too often, and say in each answer how much is left."""

    def check() -> None:
        g.standing = None
        if (name := LIMITED.get(request.endpoint or "")) is None or request.method == "OPTIONS":
            return
        try:
            g.standing = limiter.count(name, request.remote_addr)
        except ValueError:
            bypasses.note(UNREADABLE)
        except Exception as exc:  # noqa: BLE001 - whatever fails here, a signup is not refused for it
            bypasses.note(FAILED, error=type(exc).__name__)
        else:
            if g.standing is None and limiter.limits(name) and is_forwarded_in_vain(request):
                bypasses.note(NOT_BELIEVED)
        if g.standing is not None and g.standing.is_over:
            raise _too_many(g.standing)

    app.before_request(check)
    app.after_request(_tell)


def _too_many(standing: Standing) -> ProblemError:
    return ProblemError(
        429,
        f"Too many requests from your address: try again in {standing.reset_seconds} s.",
        headers={"Retry-After": str(standing.reset_seconds)},
    )


def _tell(response: Response) -> Response:
    """Add the headers of draft-ietf-httpapi-ratelimit-headers."""
    standing: Standing | None = g.get("standing")
    if standing is not None:
        response.headers["RateLimit-Policy"] = f'"{standing.name}";q={standing.quota};w={standing.window_seconds}'
        response.headers["RateLimit"] = f'"{standing.name}";r={standing.remaining};t={standing.reset_seconds}'
    return response
