"""Requests that no limit counts although one is set, since the address of their client is not known."""

from typing import Final

import structlog
from flask import Request
from prometheus_client import CollectorRegistry, Counter

NOT_BELIEVED: Final = "header not believed"
UNREADABLE: Final = "address unreadable"
FAILED: Final = "limiter failed"

_FIXES: Final = {
    NOT_BELIEVED: "set TRUSTED_PROXIES to the number of proxies in front, or RATE_LIMIT_EXEMPT without their address",
    UNREADABLE: "let the proxy send an IP address in X-Forwarded-For",
    FAILED: "look at the error",
}
_FORWARDING_HEADERS: Final = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
_BEFORE_PROXY_FIX: Final = "werkzeug.proxy_fix.orig"

_log = structlog.get_logger(__name__)


class LimitBypasses:
    """Counts them, and logs the first of each reason in this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count from zero."""
        self._counter = Counter(
            "http_unlimited_requests",
            "Requests that no rate limit counted although one is set, by reason",
            ["reason"],
            registry=registry,
        )
        for reason in _FIXES:
            self._counter.labels(reason)
        self._logged: set[str] = set()

    def note(self, reason: str, **fields: str) -> None:
        """Count a request."""
        self._counter.labels(reason).inc()
        if reason not in self._logged:
            self._logged.add(reason)
            _log.warning("rate_limit.bypassed", reason=reason, fix=_FIXES[reason], **fields)


def is_forwarded_in_vain(request: Request) -> bool:
    """Return whether a proxy named the client in a header that is not believed: the proxy then looks like the client.

    Either no proxy is trusted, or fewer stand in front than are trusted.
    """
    if not any(name in request.headers for name in _FORWARDING_HEADERS):
        return False
    before = request.environ.get(_BEFORE_PROXY_FIX, {}).get("REMOTE_ADDR")
    return before is None or before == request.remote_addr
