"""Limits on how often one client may ask, counted in this process's memory.

They slow down one client, not a network of them. Nothing depends on them: a limiter that fails lets the request pass.
"""

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Final, NamedTuple

from flask import Flask, Response, g, request
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from api.clients.forwarding import Client, client_of
from api.clients.ignored_headers import IgnoredHeaders
from api.clients.limit_bypasses import FAILED, NOT_BELIEVED, UNREADABLE, LimitBypasses
from api.http.problems import ProblemError
from shared.settings.rate_limits import RateLimits

LIMITED: Final[Mapping[str, str]] = {
    "signup.create_user": "signup",
    "pages.sign_up": "signup",
    "verification.show": "verify",
    "verification.use_posted": "verify",
    "signup.send_again": "resend",
    "pages.send_again": "resend",
    "pages.correct_address": "resend",
    "signup.correct_address": "resend",
    "signup.show": "verify",
    "ops.login": "ops_login",
}
"""The limit that each endpoint counts towards: a form and its address for programs share one."""

UNKNOWN: Final = "unknown"
"""The one client that all are whose address is not known."""


class RateLimitStatus(NamedTuple):
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

    @cached_property
    def _counter(self) -> FixedWindowRateLimiter:
        # Its storage starts threads: not before a fork.
        return FixedWindowRateLimiter(MemoryStorage())

    def count(self, name: str, client: Client) -> RateLimitStatus | None:
        """Count a request and return where its client stands; None for one that is not limited."""
        limit = self._limits.by_name.get(name)
        if limit is None or (counted := self.counted_as(client)) is None:
            return None
        is_within = self._counter.hit(limit, name, counted)
        reset_at, remaining = self._counter.get_window_stats(limit, name, counted)
        if reset_at - time.time() > limit.get_expiry() + 1:
            # The clock was put back. Windows would last until it is where it was.
            self._counter.clear(limit, name, counted)
            return self.count(name, client)
        reset = max(1, round(reset_at - time.time()))
        return RateLimitStatus(name, limit.amount, limit.get_expiry(), remaining, reset, is_over=not is_within)

    def counted_as(self, client: Client) -> str | None:
        """Return whom a request is counted for: a network, UNKNOWN, or None for nobody.

        An exemption is for the client itself: neither for a proxy that speaks for others, nor for an address of
        loopback that a header holds.
        """
        if client.address is None:
            return UNKNOWN
        if any(client.address in network for network in self._limits.exempt):
            if client.ignored is not None:
                return UNKNOWN
            if not (client.is_forwarded and client.address.is_loopback):
                return None
        return client.network


def limit_rates(app: Flask, limiter: RateLimiter, bypasses: LimitBypasses, ignored: IgnoredHeaders) -> None:
    """Refuse what comes too often, and say in each answer how much is left."""

    def check() -> None:
        g.rate_limit = None
        client = client_of(request)
        if client.ignored is not None:
            ignored.log(client.ignored)
        if (name := LIMITED.get(request.endpoint or "")) is None or request.method == "OPTIONS":
            return
        if client.ignored is not None:
            ignored.keep(client.ignored)
        try:
            g.rate_limit = limiter.count(name, client)
        except Exception as exc:  # noqa: BLE001 - whatever fails here, a signup is not refused for it
            bypasses.note(FAILED, error=type(exc).__name__)
            return
        if g.rate_limit is not None and limiter.counted_as(client) == UNKNOWN:
            bypasses.note(UNREADABLE if client.address is None else NOT_BELIEVED)
        if g.rate_limit is not None and g.rate_limit.is_over:
            raise _too_many(g.rate_limit)

    app.before_request(check)
    app.after_request(_tell)


def _too_many(status: RateLimitStatus) -> ProblemError:
    wait = "1 second" if status.reset_seconds == 1 else f"{status.reset_seconds} seconds"
    return ProblemError(
        429,
        f"Too many requests from your address. Try again in {wait}.",
        headers={"Retry-After": str(status.reset_seconds)},
    )


def _tell(response: Response) -> Response:
    """Add the headers of draft-ietf-httpapi-ratelimit-headers."""
    status: RateLimitStatus | None = g.get("rate_limit")
    if status is not None:
        response.headers["RateLimit-Policy"] = f'"{status.name}";q={status.quota};w={status.window_seconds}'
        response.headers["RateLimit"] = f'"{status.name}";r={status.remaining};t={status.reset_seconds}'
    return response
