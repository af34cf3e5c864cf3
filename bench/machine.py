"""On what the figures were measured."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from bench.servers import Servers

_PACKAGES: Final = (
    "rq",
    "redis",
    "psycopg",
    "sqlalchemy",
    "celery",
    "dramatiq",
    "procrastinate",
    "txoutbox",
)


def describe(servers: Servers) -> dict[str, str]:
    """Name what decides about the figures: cores, versions, the disk's time to keep a page."""
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "fdatasync": f"{servers.sync_microseconds():.0f} µs",
        "mail sink": f"{servers.sink.cost_microseconds():.0f} µs CPU/mail",
        "Python": platform.python_version(),
        **servers.versions(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
