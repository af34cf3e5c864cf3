"""The operator's statements about webhook endpoints: add, list, rotate secrets, disable, enable, remove."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import insert_finished
from shared.outbox.destinations.control import DISABLED
from shared.outbox.messages import QUEUES, DeliverWebhook
from shared.webhooks.events import DESTINATION_PREFIX, webhook_destination

NAME_PATTERN: Final = r"[a-z0-9][a-z0-9_.-]{0,63}"
"""The form of an endpoint's name, as the table's constraint has it."""

DISCARDED_AT_ONCE: Final = 1000
COUNTED: Final = 10_000
"""How many waiting messages are counted at most."""

_REMOVED: Final = "discarded: the endpoint was removed"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint, with the state of its destination.

    Attributes:
        id: its id.
        name: its name.
        url: where events are sent; it may contain a token.
        events: the events that it gets.
        created_at: when it was added.
        enabled_at: when it was enabled last.
        fan_out_until: until when events are written for it; None for always.
        removed_at: since when it is being removed.
        secrets: how many secrets are valid.
        paused_at: since when it is disabled, or paused.
        pause_reason: why.
        opened_at: since when it is unavailable.
        last_error: the cause of the last outage.
        waiting: how many messages wait for it, COUNTED + 1 for more than COUNTED.

    """

    id: int
    name: str
    url: str
    events: list[str]
    created_at: datetime
    enabled_at: datetime
    fan_out_until: datetime | None
    removed_at: datetime | None
    secrets: int
    paused_at: datetime | None
    pause_reason: str | None
    opened_at: datetime | None
    last_error: str | None
    waiting: int

    @property
    def destination(self) -> str:
        """The destination of its messages."""
        return webhook_destination(self.id)

    @property
    def is_disabled(self) -> bool:
        """Whether it is disabled, rather than paused with `destinations pause`."""
        return (self.pause_reason or "").startswith(DISABLED)


@own_transaction
def add(connection: DbConnection, name: str, url: str, events: Sequence[str], secret: str) -> int | None:
    """Add an endpoint and return its id; None if another one has the name."""
    row = connection.execute(
        """
        WITH added AS (
            INSERT INTO webhook_endpoints (name, url, events) VALUES (%s, %s, %s)
                ON CONFLICT (name) DO NOTHING
            RETURNING id
        ), secrets AS (
            INSERT INTO webhook_secrets (endpoint_id, secret) SELECT id, %s FROM added
        )
        SELECT id FROM added
        """,
        [name, url, list(events), secret],
    ).fetchone()
    return None if row is None else int(row[0])


def list_endpoints(connection: DbConnection, name: str | None = None) -> list[Endpoint]:
    """Return the endpoints by name, or the one that has this name."""
    with connection.cursor(row_factory=class_row(Endpoint)) as cursor:
        return cursor.execute(
            f"""
            SELECT endpoint.id, endpoint.name, url, events, created_at, enabled_at, fan_out_until, removed_at,
                   (SELECT count(*) FROM webhook_secrets
                     WHERE endpoint_id = endpoint.id AND (ends_at IS NULL OR ends_at > clock_timestamp())) AS secrets,
                   paused_at, pause_reason, opened_at, last_error, waiting
              FROM webhook_endpoints AS endpoint
              LEFT JOIN outbox_destinations AS state ON state.name = '{DESTINATION_PREFIX}' || endpoint.id
             CROSS JOIN LATERAL (
                 SELECT count(*) AS waiting
                   FROM (SELECT FROM outbox
                          WHERE status = 'pending' AND queue = ANY(%(queues)s::text[])
                            AND coalesce(destination, '') = '{DESTINATION_PREFIX}' || endpoint.id
                          LIMIT {COUNTED + 1}) AS first
             ) AS counted
             WHERE %(name)s::text IS NULL OR endpoint.name = %(name)s
             ORDER BY endpoint.name
            """,  # noqa: S608 - constants of our own
            {"name": name, "queues": list(QUEUES)},
        ).fetchall()


@own_transaction
def rotate(connection: DbConnection, endpoint_id: int, secret: str, overlap_seconds: float) -> bool:
    """Add a secret, and end all former ones after the overlap. Return False if the endpoint is gone."""
    row = connection.execute(
        """
        WITH endpoint AS (
            SELECT id FROM webhook_endpoints WHERE id = %(id)s AND removed_at IS NULL FOR UPDATE
        ), gone AS (
            DELETE FROM webhook_secrets USING endpoint
             WHERE endpoint_id = endpoint.id AND ends_at <= clock_timestamp()
        ), former AS (
            UPDATE webhook_secrets
               SET ends_at = least(ends_at, clock_timestamp() + make_interval(secs => %(overlap)s))
              FROM endpoint
             WHERE endpoint_id = endpoint.id AND (ends_at IS NULL OR ends_at > clock_timestamp())
        )
        INSERT INTO webhook_secrets (endpoint_id, secret) SELECT id, %(secret)s FROM endpoint
        RETURNING id
        """,
        {"id": endpoint_id, "secret": secret, "overlap": overlap_seconds},
    ).fetchone()
    return row is not None


@own_transaction
def enable(connection: DbConnection, endpoint_id: int) -> bool:
    """Enable an endpoint: its events go on, and what waits is sent. Return False if the endpoint is gone.

    Its breaker is closed: an outage of five days would disable it again at the first failure. A pause that is not that
    of a disabled endpoint stays.
    """
    row = connection.execute(
        """
        WITH endpoint AS (
            UPDATE webhook_endpoints
               SET enabled_at = clock_timestamp(), fan_out_until = NULL
             WHERE id = %(id)s AND removed_at IS NULL
            RETURNING id
        ), state AS (
            UPDATE outbox_destinations AS d
               SET paused_at = CASE WHEN starts_with(pause_reason, %(disabled)s) THEN NULL ELSE paused_at END,
                   pause_reason = CASE WHEN starts_with(pause_reason, %(disabled)s) THEN NULL ELSE pause_reason END,
                   opened_at = NULL, outages = 0, probe_at = NULL, probe_id = NULL
              FROM endpoint
             WHERE d.name = %(prefix)s || endpoint.id
        )
        SELECT id FROM endpoint
        """,
        {"id": endpoint_id, "prefix": DESTINATION_PREFIX, "disabled": DISABLED},
    ).fetchone()
    return row is not None


@own_transaction
def begin_removal(connection: DbConnection, endpoint_id: int) -> None:
    """End the events of an endpoint. What a transaction writes that began before is discarded when it is claimed."""
    connection.execute(
        """
        UPDATE webhook_endpoints
           SET removed_at = coalesce(removed_at, clock_timestamp()),
               fan_out_until = least(fan_out_until, clock_timestamp())
         WHERE id = %s
        """,
        [endpoint_id],
    )


@own_transaction
def discard_waiting(connection: DbConnection, endpoint_id: int, limit: int = DISCARDED_AT_ONCE) -> int:
    """Discard some of the messages that wait for an endpoint, and return how many. Dead letters are left alone."""
    gone = f"""
        DELETE FROM outbox
         WHERE status = 'pending' AND id = ANY(ARRAY(
             SELECT id FROM outbox
              WHERE status = 'pending' AND queue = ANY(%(queues)s::text[])
                AND coalesce(destination, '') = %(destination)s AND task = '{DeliverWebhook.task}'
              LIMIT %(limit)s
                FOR UPDATE SKIP LOCKED))
        RETURNING *
    """  # noqa: S608 - a constant of our own
    finished = insert_finished("gone", status="'discarded'", last_error="%(reason)s")
    discarded = connection.execute(
        f"WITH gone AS ({gone}) {finished}",
        {
            "queues": list(QUEUES),
            "destination": webhook_destination(endpoint_id),
            "limit": limit,
            "reason": _REMOVED,
        },
    )
    return discarded.rowcount


@own_transaction
def end_removal(connection: DbConnection, endpoint_id: int) -> None:
    """Delete the endpoint and its destination's row.

    Without that row the destination is neither paused nor unavailable, so that a message that comes late is claimed,
    and discarded then.
    """
    connection.execute("DELETE FROM outbox_destinations WHERE name = %s", [webhook_destination(endpoint_id)])
    connection.execute("DELETE FROM webhook_endpoints WHERE id = %s", [endpoint_id])


@own_transaction
def append_test(connection: DbConnection, endpoint_id: int, body: str) -> int:
    """Append a message with this event for one endpoint, and return its id."""
    [(id_,)] = connection.execute(
        "INSERT INTO outbox (task, payload, queue, destination) VALUES (%s, %s, %s, %s) RETURNING id",
        [
            DeliverWebhook.task,
            Jsonb({"endpoint_id": endpoint_id, "body": body}),
            DeliverWebhook.queue,
            webhook_destination(endpoint_id),
        ],
    ).fetchall()
    return int(id_)
