"""Checks the outbox: whether a relay runs, the breaker is closed, and no message waits too long."""

from collections.abc import Iterator, Sequence
from typing import Final

from outbox_relay.doctor.findings import Finding, fault, ok, skipped, warning
from outbox_relay.doctor.postgresql_checks import takes_writes
from outbox_relay.doctor.webhook_checks import check_webhooks
from shared.database.connections import DbConnection
from shared.database.read_transaction import read_transaction
from shared.outbox.messages import MAIL
from shared.outbox.operations.dead_letters import count_dead
from shared.outbox.operations.destination_stats import DestinationStats, read_destination_stats
from shared.outbox.operations.stats import DependencyStatus, LiveState, read_dependency_status, read_live_states
from shared.outbox.operations.unknown_tasks import read_unknown_tasks
from shared.settings.relay import RelaySettings
from shared.webhooks.events import DESTINATION_PREFIX

_OVERDUE_SECONDS: Final = 60.0
_LEASES_AGREE_SECONDS: Final = 1.0
_CLAIMS_READ: Final = 1000
_SHOWN: Final = 5


def check_outbox(connection: DbConnection, settings: RelaySettings) -> list[Finding]:
    """Check the relays, the breaker, due messages, the run lease, the workers' tasks and dead letters."""
    if not takes_writes(connection):
        # The relays are not the cause.
        return [skipped("relay", "PostgreSQL takes no writes, so that no relay can work or be seen")]
    with read_transaction(connection):
        return list(_check_outbox(connection, settings))


def _check_outbox(connection: DbConnection, settings: RelaySettings) -> Iterator[Finding]:
    dependencies = read_dependency_status(connection)
    yield _check_relay(dependencies)
    yield _check_breaker(connection, dependencies)
    live = read_live_states(connection)
    destinations = read_destination_stats(connection, live)
    yield _check_destinations(destinations)
    yield _check_waiting(live, destinations)
    yield _check_run_lease(connection, settings)
    yield from check_webhooks(connection)
    yield _check_tasks(connection)
    dead_letters = count_dead(connection)
    if dead_letters.number:
        yield warning(
            "dead letters",
            f"{dead_letters} need a decision",
            "python -m outbox_relay dead --groups; then retry or discard them",
        )
    else:
        yield ok("dead letters", "none")


def _check_relay(dependencies: DependencyStatus) -> Finding:
    if dependencies.relays:
        return ok("relay", f"{dependencies.relays} alive")
    seen = dependencies.relay_seen_seconds
    message = (
        "none has ever run with this database" if seen is None else f"none is alive, the last was seen {seen:.0f} s ago"
    )
    return fault(
        "relay", message, "start one: python -m outbox_relay; if one runs, its log names the server that it waits for"
    )


def _check_breaker(connection: DbConnection, dependencies: DependencyStatus) -> Finding:
    if dependencies.mail_away_seconds is None:
        return ok("breaker", "closed: the workers reach the mail server")
    # As JSON: a database that was not migrated yet has no such column.
    row = connection.execute(
        "SELECT last_error, to_jsonb(b) ->> 'policy_code' FROM outbox_destinations AS b WHERE name = 'mail'"
    ).fetchone()
    reason, policy_code = ("no reason", None) if row is None else row
    fix = (
        "fix the mail server, or SMTP_URL of the workers; single mails probe it and close the breaker"
        if policy_code is None
        else "it refuses our mail: ask its operator; single mails probe it, and an accepted one closes the breaker"
    )
    return fault("breaker", f"open for {dependencies.mail_away_seconds:.0f} s: {reason}", fix)


def _check_destinations(destinations: Sequence[DestinationStats]) -> Finding:
    """Check what is paused or unreachable. The breaker of mail and disabled endpoints have checks of their own."""
    held_up = [
        f"{each.name} is {'unreachable' if each.paused_seconds is None else 'paused'}"
        for each in destinations
        if each.is_blocked and not each.is_disabled and (each.paused_seconds is not None or each.name != MAIL)
    ]
    if not held_up:
        return ok("destinations", "none is paused or unreachable")
    more = f", and {len(held_up) - _SHOWN} more" if len(held_up) > _SHOWN else ""
    return warning(
        "destinations",
        ", ".join(held_up[:_SHOWN]) + more,
        "python -m outbox_relay destinations shows the reasons; `destinations resume NAME` ends a pause",
    )


def _check_waiting(live: Sequence[LiveState], destinations: Sequence[DestinationStats]) -> Finding:
    """Check the age of due messages that nothing holds up. An endpoint of webhooks may be slow."""
    held_up = [each.is_blocked or each.is_limited or each.name.startswith(DESTINATION_PREFIX) for each in destinations]
    if any(held_up):
        ages = [each.oldest_seconds for each, is_held_up in zip(destinations, held_up, strict=True) if not is_held_up]
    else:
        ages = [each.oldest_seconds for each in live if each.status == "pending"]
    waited = max(ages, default=0.0)
    if waited > _OVERDUE_SECONDS:
        return fault(
            "waiting",
            f"a due message has been waiting for {waited:.0f} s to be published",
            "check the relay's log and the faults above; more relays publish faster",
        )
    return ok("waiting", "no due message waits to be published")


def _check_run_lease(connection: DbConnection, settings: RelaySettings) -> Finding:
    """Compare the leases of running claims with the one that is set here."""
    row = connection.execute(
        """
        SELECT extract(epoch FROM max(lease_until - claimed_at))::float8
          FROM (SELECT lease_until, claimed_at, destination, failures FROM outbox
                 WHERE status = 'running'
                 ORDER BY lease_until DESC LIMIT %s) AS newest
         -- Others may have been renewed.
         WHERE destination = 'mail' AND NOT failures @> '[{"unanswered": true}]'
           AND claimed_at > clock_timestamp() - interval '1 day'
        """,
        [_CLAIMS_READ],
    ).fetchone()
    taken = None if row is None else row[0]
    if taken is not None and abs(taken - settings.run_lease_seconds) > _LEASES_AGREE_SECONDS:
        return warning(
            "run lease",
            f"a worker takes {taken:.0f} s, OUTBOX_RUN_LEASE_SECONDS is {settings.run_lease_seconds:g} here",
            "set the same for relay and workers: the relay waits for a probe of the mail server by its own value",
        )
    return ok("run lease", "the same here and in the running claims")


def _check_tasks(connection: DbConnection) -> Finding:
    unknown = read_unknown_tasks(connection)
    if unknown:
        return warning(
            "tasks",
            f"a worker does not know: {', '.join(unknown)}",
            "name their modules in OUTBOX_TASKS of every worker, or deploy the version that has them; then retry the"
            " dead letters",
        )
    return ok("tasks", "no message was released by a worker that does not know its task")
