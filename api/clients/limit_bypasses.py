"""Count requests that were not limited by their own client: it is not known, or the limiter failed."""

from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from shared.settings.api import HOW_TO_TRUST_PROXIES

NOT_BELIEVED: Final = "header not believed"
UNREADABLE: Final = "address unreadable"
FAILED: Final = "limiter failed"

_UNKNOWN: Final = {
    NOT_BELIEVED: HOW_TO_TRUST_PROXIES,
    UNREADABLE: "let the proxy send an IP address in the header that FORWARDING_HEADER names",
}
_UNLIMITED: Final = {FAILED: "see the error"}

_log = structlog.get_logger(__name__)


class LimitBypasses:
    """Counts such requests, and logs the first of each reason in this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        unknown = Counter(
            "http_unknown_clients",
            "Requests that share one limit since their client is not known, by reason",
            ["reason"],
            registry=registry,
        )
        unlimited = Counter(
            "http_unlimited_requests",
            "Requests that no rate limit counted although one is set, by reason",
            ["reason"],
            registry=registry,
        )
        self._counts = {
            **{reason: unknown.labels(reason) for reason in _UNKNOWN},
            **{reason: unlimited.labels(reason) for reason in _UNLIMITED},
        }
        self._logged: set[str] = set()

    def note(self, reason: str, **fields: str) -> None:
        """Count a request, and log it if it is the first of its reason."""
        self._counts[reason].inc()
        if reason in self._logged:
            return
        self._logged.add(reason)
        if reason in _UNKNOWN:
            _log.warning("client.unidentified", reason=reason, fix=_UNKNOWN[reason], **fields)
        else:
            _log.warning("rate_limit.bypassed", reason=reason, fix=_UNLIMITED[reason], **fields)
