"""Describe the machine and the versions that the figures belong to."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from bench.environment.servers import Servers

_PACKAGES: Final = (
    "rq",
    "redis",
    "psycopg",
    "sqlalchemy",
    "celery",
    "dramatiq",
    "procrastinate",
    "pgqueuer",
    "txoutbox",
)


def occasion(servers: Servers, size: str) -> dict[str, str]:
    """Return when and how the figures are measured, and what else affects them."""
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "with": f"--{size}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "fdatasync": f"{servers.sync_microseconds():.0f} µs",
        "mail sink": f"{servers.sink.cost_microseconds():.0f} µs CPU/mail",
    }


def machine(servers: Servers) -> dict[str, str]:
    """Return the machine's cores, and what is installed."""
    return {
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        **servers.versions(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
