"""Whether a proxy names its clients to the API and is not believed, so that all clients look like the proxy."""

from collections.abc import Iterator
from typing import Final

from outbox_relay.doctor.findings import Finding, ok, warning
from shared.database.connections import DbConnection

_CHECK: Final = "proxies"
_SEEN_HOURS: Final = 1


def check_ignored_headers(connection: DbConnection) -> Iterator[Finding]:
    """Look at what the API has kept of the last hour."""
    if not _may_read(connection):
        return  # a role or a schema of the version before: named already
    rows = connection.execute(
        "SELECT name, to_char(seen_at AT TIME ZONE 'UTC', 'HH24:MI') FROM ignored_headers"
        " WHERE seen_at > now() - make_interval(hours => %s) ORDER BY name",
        [_SEEN_HOURS],
    ).fetchall()
    if not rows:
        yield ok(_CHECK, "no forwarding header came in the last hour that the API does not believe")
    for name, seen_at in rows:
        yield warning(
            _CHECK,
            f"{name} came with a request, at {seen_at} UTC the last time, and the API does not believe it: if a proxy"
            " sent it, all its clients count as one for the limits",
            "set TRUSTED_PROXIES of the API to the number of proxies in front of it and FORWARDING_HEADER to what they"
            " send; a client that reaches the API without a proxy may have made it up",
        )


def _may_read(connection: DbConnection) -> bool:
    row = connection.execute("SELECT has_table_privilege(to_regclass('ignored_headers'), 'SELECT')").fetchone()
    return row is not None and row[0] is True
