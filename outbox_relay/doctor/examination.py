"""Run all checks, causes before their effects: settings, servers, schema, then the relays and messages."""

from collections.abc import Callable, Generator, Iterable, Iterator

import psycopg

from outbox_relay.doctor.findings import Finding, fault, skipped
from outbox_relay.doctor.grants_check import check_grants, check_usage
from outbox_relay.doctor.mail_check import check_mail_server
from outbox_relay.doctor.outbox_checks import check_outbox
from outbox_relay.doctor.postgresql_checks import check_clock, check_jit, check_server, check_snapshots, check_vacuum
from outbox_relay.doctor.proxy_check import check_ignored_headers
from outbox_relay.doctor.redis_checks import check_redis
from outbox_relay.doctor.schema_drift import check_schema
from outbox_relay.doctor.settings_check import (
    check_connection_class,
    check_leases,
    check_proxies,
    check_settings_of_others,
)
from shared.database.connections import DbConnection, connect
from shared.database.errors import TAKES_TOO_LONG
from shared.errors import SettingsError
from shared.outage_causes import postgresql_cause
from shared.settings.relay import RelaySettings
from shared.settings.smtp_server import read_smtp_helo_name, read_smtp_server


def examine(settings: RelaySettings, longest_transaction_seconds: float) -> Iterator[Finding]:
    """Run every check, and yield each finding as soon as it is known.

    Args:
        settings: the relay's settings.
        longest_transaction_seconds: the age from which an open transaction is a fault.

    """
    yield from check_settings_of_others()
    yield check_proxies()
    yield from check_connection_class(settings)
    yield check_leases(settings)
    is_usable = yield from _check_database(
        settings, lambda connection: _check_postgresql(connection, longest_transaction_seconds)
    )
    yield from check_redis(settings.redis_url, settings.key_prefix)
    yield from _check_mail()
    if is_usable:
        yield from _check_database(settings, lambda connection: check_outbox(connection, settings))


def _check_database(
    settings: RelaySettings, check: Callable[[DbConnection], Iterable[Finding]]
) -> Generator[Finding, None, bool]:
    """Run checks that need PostgreSQL, and return whether all of them were done."""
    try:
        with connect(settings.database_url, "outbox-doctor", any_encoding=True) as connection:
            if (closed := check_usage(connection)) is not None:
                yield closed
                return False
            yield from check(connection)
    except psycopg.errors.UndefinedTable:
        yield fault("outbox", "its tables are missing", "apply schema.sql with psql")
    except psycopg.errors.InsufficientPrivilege as exc:
        cause = postgresql_cause(exc, settings.database_url)
        yield fault("grants", f"this role may not read it: {cause}", "grant it what docs/roles.sql grants to the relay")
    except TAKES_TOO_LONG:
        yield fault("outbox", "PostgreSQL takes too long to read it", "see OutboxUnreadable in the runbook")
    except psycopg.Error as exc:
        cause = postgresql_cause(exc, settings.database_url)
        yield fault("postgresql", f"it cannot be used: {cause}", "start PostgreSQL, or fix DATABASE_URL")
    else:
        return True
    return False


def _check_postgresql(connection: DbConnection, longest_transaction_seconds: float) -> Iterator[Finding]:
    yield from check_server(connection)
    yield check_jit(connection)
    yield check_clock(connection)
    yield check_snapshots(connection, longest_transaction_seconds)
    yield check_grants(connection)
    yield check_schema(connection)
    yield check_vacuum(connection)
    yield from check_ignored_headers(connection)


def _check_mail() -> Iterator[Finding]:
    try:
        server, helo_name = read_smtp_server(), read_smtp_helo_name()
    except SettingsError:
        return  # reported already, among the settings
    if server is None:
        yield skipped("mail server", "SMTP_URL is not set in this shell")
    else:
        yield check_mail_server(server, helo_name)
