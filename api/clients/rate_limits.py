"""Limit how often one client may send requests, counted in this process's memory.

The limits slow down a single client, not a network of them. No guarantee depends on them: if the limiter fails, the
request passes.
"""

import time
from collections.abc import Callable, Mapping
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
"""The limit that each endpoint counts towards. A form and its JSON route share one."""

UNKNOWN: Final = "unknown"
"""The name under which all clients without a known address are counted together."""


class RateLimitStatus(NamedTuple):
    """How much of one limit a client has left."""

    name: str
    quota: int
    window_seconds: int
    remaining: int
    reset_seconds: int
    is_over: bool


class RateLimiter:
    """Counts each client's requests in fixed windows."""

    def __init__(self, limits: RateLimits, storage: Callable[[], MemoryStorage] = MemoryStorage) -> None:
        self._limits = limits
        self._storage = storage

    @cached_property
    def _counter(self) -> FixedWindowRateLimiter:
        # Created on first use: its storage starts threads, which do not survive a fork.
        return FixedWindowRateLimiter(self._storage())

    def count(self, name: str, client: Client) -> RateLimitStatus | None:
        """Count a request and return what its client has left; None where no limit applies."""
        limit = self._limits.by_name.get(name)
        if limit is None or (counted := self.counted_as(client)) is None:
            return None
        is_within = self._counter.hit(limit, name, counted)
        reset_at, remaining = self._counter.get_window_stats(limit, name, counted)
        if reset_at - time.time() > limit.get_expiry() + 1:
            # The clock was set back. Without this, the window would last until the clock catches up.
            self._counter.clear(limit, name, counted)
            return self.count(name, client)
        reset = max(1, round(reset_at - time.time()))
        return RateLimitStatus(name, limit.amount, limit.get_expiry(), remaining, reset, is_over=not is_within)

    def counted_as(self, client: Client) -> str | None:
        """Return the name that a request is counted under: a network, or UNKNOWN; None for an exempt client.

        Exemptions apply only to the client itself: not to a proxy that speaks for others, and not to a loopback address
        in a header.
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
    """Refuse requests beyond the limits, and report in each response what is left."""

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
    app.after_request(_add_headers)


def _too_many(status: RateLimitStatus) -> ProblemError:
    wait = "1 second" if status.reset_seconds == 1 else f"{status.reset_seconds} seconds"
    return ProblemError(
        429,
        f"Too many requests from your address. Try again in {wait}.",
        headers={"Retry-After": str(status.reset_seconds)},
    )


def _add_headers(response: Response) -> Response:
    """Add the headers of draft-ietf-httpapi-ratelimit-headers."""
    status: RateLimitStatus | None = g.get("rate_limit")
    if status is not None:
        response.headers["RateLimit-Policy"] = f'"{status.name}";q={status.quota};w={status.window_seconds}'
        response.headers["RateLimit"] = f'"{status.name}";r={status.remaining};t={status.reset_seconds}'
    return response
