"""Report a proxy that names its clients but is not trusted: in the log, and in PostgreSQL for `doctor`.

Behind such a proxy, all clients look like the proxy and share one limit. Nothing depends on what is written here.
"""

from time import monotonic
from typing import Final

import structlog

from api.database.engine import DatabaseUnavailableError
from api.database.side_connections import SideConnections
from shared.settings.api import HOW_TO_TRUST_PROXIES, is_behind_tls

_AGAIN_SECONDS: Final = 600.0
_FIX: Final = f"{HOW_TO_TRUST_PROXIES}; a client that uses no proxy may also have invented the header"
_KEEP: Final = (
    "INSERT INTO ignored_headers AS h (name, seen_at) VALUES (%s, now())"
    " ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at"
)

_log = structlog.get_logger(__name__)


def warn_of_untrusted_proxy(trusted_proxies: int) -> None:
    """Log a warning at the start if BASE_URL shows that there is a proxy which is not trusted."""
    if not trusted_proxies and is_behind_tls():
        _log.warning("proxy.not_trusted", reason="BASE_URL is https:// and TRUSTED_PROXIES is 0", fix=_FIX)


class IgnoredHeaders:
    """Logs each ignored header once per process, and records in PostgreSQL every ten minutes that it still arrives."""

    def __init__(self, connections: SideConnections) -> None:
        self._connections = connections
        self._logged: set[str] = set()
        self._kept_at: dict[str, float] = {}

    def log(self, header: str) -> None:
        """Log that this header was ignored."""
        if header not in self._logged:
            self._logged.add(header)
            _log.warning("forwarding_header.ignored", header=header, fix=_FIX)

    def keep(self, header: str) -> None:
        """Record the header in PostgreSQL. Only for requests that need PostgreSQL anyway, never for health checks."""
        now, kept_at = monotonic(), self._kept_at.get(header)
        if kept_at is not None and now - kept_at < _AGAIN_SECONDS:
            return
        self._kept_at[header] = now
        try:
            with self._connections.borrow() as connection:
                connection.execute(_KEEP, [header])
        except DatabaseUnavailableError as exc:
            _log.info("forwarding_header.not_kept", reason=exc.reason, meaning="doctor cannot report it")
