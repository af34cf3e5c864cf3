"""The statements of the breaker: whether the mail server is known to be unreachable, and which message probes it.

Each function executes one statement, whose conditions make it safe to run concurrently with any other.
"""

from dataclasses import dataclass
from typing import Final

from shared.database.connections import DbConnection

LONGEST_PROBE_PAUSE_SECONDS: Final = 30.0
"""The longest time between two probes of an unreachable mail server: after its return, work resumes within a minute."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of the mail server: reachable, or unreachable with at most one message that probes it."""

    is_open: bool
    probe_id: int | None


def read_breaker(connection: DbConnection) -> Breaker:
    """Return whether the mail server is known to be unreachable, and which message is the probe.

    Call it in a transaction after the claim's: the claim may have waited for the relay that chose the probe.
    """
    row = connection.execute(
        "SELECT probe_id FROM outbox_destinations WHERE name = 'mail' AND opened_at IS NOT NULL"
    ).fetchone()
    return Breaker(is_open=row is not None, probe_id=None if row is None else row[0])


def open_breaker(connection: DbConnection, message_id: int, reason: str, scale: float) -> None:
    """Open the breaker: the mail server is unreachable. Probes follow after 1, 2, 4 … 30 seconds, times `scale`.

    Only the message that found the outage and the probes after it lengthen the pause: ten mails that fail at the same
    moment are one outage, not ten.
    """
    connection.execute(
        """
        INSERT INTO outbox_destinations AS b (name, opened_at, outages, probe_at, last_error)
        VALUES ('mail', clock_timestamp(), 1, clock_timestamp() + make_interval(secs => %(scale)s), %(reason)s)
            ON CONFLICT (name) DO UPDATE
           SET opened_at = coalesce(b.opened_at, excluded.opened_at),
               outages = CASE WHEN b.opened_at IS NULL THEN 1
                              WHEN b.probe_id = %(id)s THEN least(b.outages, 30) + 1
                              ELSE b.outages END,
               probe_at = CASE WHEN b.opened_at IS NULL THEN excluded.probe_at
                               WHEN b.probe_id = %(id)s THEN clock_timestamp()
                                   + make_interval(secs => %(scale)s * least(%(longest)s, 2 ^ least(b.outages, 30)))
                               ELSE b.probe_at END,
               probe_id = nullif(b.probe_id, %(id)s),
               last_error = excluded.last_error
        """,
        {"id": message_id, "reason": reason, "scale": scale, "longest": LONGEST_PROBE_PAUSE_SECONDS},
    )


def close_breaker(connection: DbConnection, *, is_accepted: bool) -> bool:
    """Close the breaker: the mail server answers, or has accepted a mail. Return whether it was open.

    An outage by policy ends only with an accepted mail, because a server that refuses everything answers too.
    """
    closed = connection.execute(
        """
        UPDATE outbox_destinations
           SET opened_at = NULL, outages = 0, probe_at = NULL, probe_id = NULL, policy_code = NULL,
               refusals = CASE WHEN %(accepted)s THEN '[]' ELSE refusals END,
               accepted_at = CASE WHEN %(accepted)s THEN clock_timestamp() ELSE accepted_at END
         WHERE name = 'mail' AND opened_at IS NOT NULL AND (%(accepted)s OR policy_code IS NULL)
        """,
        {"accepted": is_accepted},
    )
    return closed.rowcount == 1


def release_probe(connection: DbConnection, message_id: int, delay_seconds: float = 0) -> None:
    """Let another message be the probe after a pause: this one ended without a result about the mail server."""
    connection.execute(
        """
        UPDATE outbox_destinations
           SET probe_at = clock_timestamp() + make_interval(secs => %s), probe_id = NULL
         WHERE name = 'mail' AND opened_at IS NOT NULL AND probe_id = %s
        """,
        [delay_seconds, message_id],
    )
