"""The consumer's statements about webhook endpoints: where a message goes, and that an endpoint is disabled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.destinations.control import DISABLED
from shared.webhooks.events import DESTINATION_PREFIX

DISABLED_AFTER_DAYS: Final = 5
"""An endpoint that is unavailable for so long is disabled."""

FAN_OUT_DAYS: Final = 30
"""For how long events go on to be written for an endpoint after it was disabled."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a message goes.

    Attributes:
        endpoint_id: the endpoint's id.
        destination: the message's destination, as its row names it.
        url: the endpoint's URL.
        secrets: the endpoint's valid secrets, the newest first.
        enabled_at: when the endpoint was enabled.
        is_long_unavailable: its breaker has been open for DISABLED_AFTER_DAYS.

    """

    endpoint_id: int
    destination: str | None
    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    enabled_at: datetime
    is_long_unavailable: bool


def read_targets(connection: DbConnection, endpoint_ids: Mapping[int, int]) -> dict[int, Target]:
    """Return where each message goes, given the ids of their endpoints. Those of a removed endpoint are left out."""
    rows = connection.execute(
        f"""
        SELECT message.id, endpoint.id, message.destination, endpoint.url,
               ARRAY(SELECT secret FROM webhook_secrets
                      WHERE endpoint_id = endpoint.id AND (ends_at IS NULL OR ends_at > clock_timestamp())
                      ORDER BY id DESC),
               endpoint.enabled_at,
               coalesce(opened_at < clock_timestamp() - interval '{DISABLED_AFTER_DAYS} days', false)
          FROM unnest(%s::bigint[], %s::bigint[]) AS wanted (id, endpoint_id)
          JOIN outbox AS message ON message.id = wanted.id
          JOIN webhook_endpoints AS endpoint ON endpoint.id = wanted.endpoint_id AND removed_at IS NULL
          LEFT JOIN outbox_destinations AS state ON state.name = '{DESTINATION_PREFIX}' || endpoint.id
        """,  # noqa: S608 - constants of our own
        [[*endpoint_ids], [*endpoint_ids.values()]],
    ).fetchall()
    return {id_: Target(endpoint, to, url, tuple(secrets), *rest) for id_, endpoint, to, url, secrets, *rest in rows}


def disable(
    connection: DbConnection, endpoint_id: int, reason: str, *, enabled_at: datetime | None, ends_events: bool
) -> bool:
    """Disable an endpoint, unless it was enabled again or removed meanwhile. Return whether it is disabled.

    Args:
        connection: in a transaction.
        endpoint_id: the endpoint.
        reason: why, for the operator.
        enabled_at: the endpoint's, as it was before what gives the reason; None for whatever it is.
        ends_events: whether no further event is written for it, rather than after FAN_OUT_DAYS.

    """
    row = connection.execute(
        """
        WITH endpoint AS (
            UPDATE webhook_endpoints
               SET fan_out_until = least(fan_out_until, clock_timestamp() + make_interval(days => %(days)s))
             WHERE id = %(id)s AND enabled_at = coalesce(%(enabled_at)s, enabled_at) AND removed_at IS NULL
            RETURNING id
        )
        INSERT INTO outbox_destinations AS d (name, paused_at, pause_reason)
        SELECT %(prefix)s || id, clock_timestamp(), %(reason)s FROM endpoint
            ON CONFLICT (name) DO UPDATE
           SET paused_at = coalesce(d.paused_at, excluded.paused_at),
               pause_reason = CASE WHEN starts_with(d.pause_reason, %(disabled)s) THEN d.pause_reason
                                   ELSE excluded.pause_reason END
        RETURNING name
        """,
        {
            "id": endpoint_id,
            "enabled_at": enabled_at,
            "days": 0 if ends_events else FAN_OUT_DAYS,
            "prefix": DESTINATION_PREFIX,
            "reason": DISABLED + reason,
            "disabled": DISABLED,
        },
    ).fetchone()
    return row is not None
