"""Checks whether a proxy names its clients and is not trusted, so that all clients share one rate limit."""

from collections.abc import Iterator
from typing import Final

from outbox_relay.doctor.findings import Finding, ok, warning
from shared.database.connections import DbConnection
from shared.settings.api import HOW_TO_TRUST_PROXIES

_CHECK: Final = "proxies"
_SEEN_HOURS: Final = 1


def check_ignored_headers(connection: DbConnection) -> Iterator[Finding]:
    """Check the ignored headers that the API has recorded in the last hour."""
    if not _may_read(connection):
        return  # a role or a schema of another version: reported already
    rows = connection.execute(
        "SELECT name, to_char(seen_at AT TIME ZONE 'UTC', 'HH24:MI') FROM ignored_headers"
        " WHERE seen_at > now() - make_interval(hours => %s) ORDER BY name",
        [_SEEN_HOURS],
    ).fetchall()
    if not rows:
        yield ok(_CHECK, "in the last hour no forwarding header came that the API does not trust")
    for name, seen_at in rows:
        yield warning(
            _CHECK,
            f"{name} came with a request, at {seen_at} UTC the last time, and the API does not trust it: if a proxy"
            " sent it, all its clients count as one for the limits",
            f"{HOW_TO_TRUST_PROXIES}; a client that uses no proxy may also have invented the header",
        )


def _may_read(connection: DbConnection) -> bool:
    row = connection.execute("SELECT has_table_privilege(to_regclass('ignored_headers'), 'SELECT')").fetchone()
    return row is not None and row[0] is True
