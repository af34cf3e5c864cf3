"""Checks the webhook endpoints: whether one is disabled, and what waits for it."""

from collections.abc import Iterator
from typing import Final

from outbox_relay.doctor.findings import Finding, warning
from shared.database.connections import DbConnection
from shared.outbox.destinations.control import DISABLED
from shared.outbox.messages import QUEUES
from shared.webhooks.events import DESTINATION_PREFIX

_SHOWN: Final = 20
_COUNTED: Final = 10_000


def check_webhooks(connection: DbConnection) -> Iterator[Finding]:
    """Yield a warning for each endpoint that is disabled, up to twenty."""
    rows = connection.execute(
        f"""
        SELECT endpoint.name, state.pause_reason,
               (SELECT count(*) FROM (
                    SELECT FROM outbox
                     WHERE status = 'pending' AND queue = ANY(%(queues)s::text[])
                       AND coalesce(destination, '') = state.name
                     LIMIT {_COUNTED + 1}) AS first)
          FROM outbox_destinations AS state
          JOIN webhook_endpoints AS endpoint ON state.name = '{DESTINATION_PREFIX}' || endpoint.id
         WHERE starts_with(state.name, '{DESTINATION_PREFIX}') AND state.paused_at IS NOT NULL
           AND starts_with(state.pause_reason, %(disabled)s)
         ORDER BY state.paused_at, endpoint.id
         LIMIT {_SHOWN}
        """,  # noqa: S608 - constants of our own
        {"queues": list(QUEUES), "disabled": DISABLED},
    ).fetchall()
    for name, reason, waiting in rows:
        number = f"more than {_COUNTED}" if waiting > _COUNTED else waiting
        yield warning(
            "webhooks",
            f"the endpoint {name} is disabled ({reason.removeprefix(DISABLED)}); {number} messages wait for it",
            f"python -m outbox_relay webhooks enable {name}, when its receiver is ready; or webhooks remove {name}",
        )
