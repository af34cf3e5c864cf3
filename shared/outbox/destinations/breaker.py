"""The statements of breakers: whether a destination is unreachable, which message probes it, and whether it is slow.

Each function executes one statement, whose conditions make it safe to run concurrently with any other. A transaction
that writes the rows of several destinations writes them in order of name, after the messages' rows.
"""

from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.messages import MAIL

LONGEST_PROBE_PAUSE_SECONDS: Final = 30.0
"""The longest time between two probes of an unreachable destination: after its return, work resumes within a minute."""

SLOW_MARK_SECONDS: Final = 10.0
"""How old a destination's slow_at is at least when it is set again."""


def open_breaker(
    connection: DbConnection,
    name: str,
    message_id: int,
    reason: str,
    scale: float,
    *,
    least_pause_seconds: float = 0,
) -> None:
    """Open a breaker: the destination is unreachable. Probes follow after 1, 2, 4 … 30 seconds, times `scale`.

    The first and each later pause is at least as long as the destination asks for.

    Only the message that found the outage and the probes after it lengthen the pause: ten messages that fail at the
    same moment are one outage, not ten.
    """
    connection.execute(
        """
        INSERT INTO outbox_destinations AS d (name, opened_at, outages, probe_at, last_error)
        VALUES (%(name)s, clock_timestamp(), 1,
                clock_timestamp() + make_interval(secs => greatest(%(scale)s, %(least)s)), %(reason)s)
            ON CONFLICT (name) DO UPDATE
           SET opened_at = coalesce(d.opened_at, excluded.opened_at),
               outages = CASE WHEN d.opened_at IS NULL THEN 1
                              WHEN d.probe_id = %(id)s THEN least(d.outages, 30) + 1
                              ELSE d.outages END,
               probe_at = CASE WHEN d.opened_at IS NULL THEN excluded.probe_at
                               WHEN d.probe_id = %(id)s THEN clock_timestamp()
                                   + make_interval(secs => greatest(
                                         %(scale)s * least(%(longest)s, 2 ^ least(d.outages, 30)), %(least)s))
                               ELSE d.probe_at END,
               probe_id = nullif(d.probe_id, %(id)s),
               last_error = excluded.last_error
        """,
        {
            "name": name,
            "id": message_id,
            "reason": reason,
            "scale": scale,
            "least": least_pause_seconds,
            "longest": LONGEST_PROBE_PAUSE_SECONDS,
        },
    )


def close_breaker(connection: DbConnection, name: str, *, is_accepted: bool) -> bool:
    """Close a breaker: the destination answers, or has accepted a message. Return whether it was open.

    An outage by policy ends only with an accepted mail, because a server that refuses everything answers too. Any other
    destination counts as slow at first: one that answers and is unreachable in turns would otherwise have its whole
    backlog published each time.
    """
    closed = connection.execute(
        """
        UPDATE outbox_destinations
           SET opened_at = NULL, outages = 0, probe_at = NULL, probe_id = NULL, policy_code = NULL,
               refusals = CASE WHEN %(accepted)s THEN '[]' ELSE refusals END,
               accepted_at = CASE WHEN %(accepted)s THEN clock_timestamp() ELSE accepted_at END,
               slow_at = CASE WHEN name = %(mail)s THEN slow_at ELSE clock_timestamp() END
         WHERE name = %(name)s AND opened_at IS NOT NULL AND (%(accepted)s OR policy_code IS NULL)
        """,
        {"name": name, "accepted": is_accepted, "mail": MAIL},
    )
    return closed.rowcount == 1


def release_probe(connection: DbConnection, name: str, message_id: int, delay_seconds: float = 0) -> None:
    """Let another message be the probe after a pause: this one ended without a result about the destination."""
    connection.execute(
        """
        UPDATE outbox_destinations
           SET probe_at = clock_timestamp() + make_interval(secs => %s), probe_id = NULL
         WHERE name = %s AND opened_at IS NOT NULL AND probe_id = %s
        """,
        [delay_seconds, name, message_id],
    )


def mark_slow(connection: DbConnection, name: str) -> None:
    """Note that a send to this destination took long, unless that was noted in the last seconds or the row is locked.

    The relays keep few messages of it published then.
    """
    connection.execute(
        """
        WITH former AS MATERIALIZED (
            SELECT name FROM outbox_destinations WHERE name = %(name)s FOR UPDATE SKIP LOCKED
        ), marked AS (
            UPDATE outbox_destinations AS d
               SET slow_at = clock_timestamp()
              FROM former
             WHERE d.name = former.name
               AND (slow_at IS NULL OR slow_at < clock_timestamp() - make_interval(secs => %(seconds)s))
        )
        INSERT INTO outbox_destinations (name, slow_at)
        VALUES (%(name)s, clock_timestamp())
            ON CONFLICT (name) DO NOTHING
        """,
        {"name": name, "seconds": SLOW_MARK_SECONDS},
    )
