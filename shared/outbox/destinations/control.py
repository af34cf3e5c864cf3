"""The statements with which an operator pauses, resumes and limits destinations."""

from enum import Enum
from typing import Final

from shared.database.connections import DbConnection

SMALLEST_RATE: Final = 0.001
LARGEST_RATE: Final = 1_000_000.0
LARGEST_IN_FLIGHT: Final = 1000
"""The bounds of a limit, as the table's constraints have them."""

TOKEN_SECONDS: Final = 0.2
"""For how long a sender may use a token. What is not used by then is lost."""

BURST: Final = f"greatest(1, max_per_second * {1 - TOKEN_SECONDS})"
"""The SQL for the most tokens that a destination can have. Those that are used within one second were taken within
1 + TOKEN_SECONDS: together with this they are at most max_per_second and a burst of as many."""

DISABLED: Final = "disabled: "
"""The start of the reason of a pause that `resume` does not end: whatever made it has a command of its own."""


class Resumed(Enum):
    """The results of `resume`."""

    RESUMED = "resumed"
    NOT_PAUSED = "not paused"
    DISABLED = "disabled"


def pause(connection: DbConnection, name: str, reason: str) -> None:
    """Pause a destination: no work for it begins that is claimed after the commit. A disabled one stays disabled."""
    connection.execute(
        """
        INSERT INTO outbox_destinations AS d (name, paused_at, pause_reason)
        VALUES (%(name)s, clock_timestamp(), %(reason)s)
            ON CONFLICT (name) DO UPDATE
           SET paused_at = coalesce(d.paused_at, excluded.paused_at),
               pause_reason = CASE WHEN starts_with(d.pause_reason, %(disabled)s) THEN d.pause_reason
                                   ELSE excluded.pause_reason END
        """,
        {"name": name, "reason": reason, "disabled": DISABLED},
    )


def resume(connection: DbConnection, name: str) -> Resumed:
    """End a destination's pause, unless it is disabled, and return the result."""
    row = connection.execute(
        """
        WITH former AS MATERIALIZED (
            SELECT name, starts_with(coalesce(pause_reason, ''), %(disabled)s) AS is_disabled
              FROM outbox_destinations
             WHERE name = %(name)s AND paused_at IS NOT NULL
               FOR UPDATE
        ), resumed AS (
            UPDATE outbox_destinations AS d
               SET paused_at = NULL, pause_reason = NULL
              FROM former
             WHERE d.name = former.name AND NOT is_disabled
        )
        SELECT is_disabled FROM former
        """,
        {"name": name, "disabled": DISABLED},
    ).fetchone()
    match row:
        case None:
            return Resumed.NOT_PAUSED
        case (True,):
            return Resumed.DISABLED
        case _:
            return Resumed.RESUMED


def set_limit(connection: DbConnection, name: str, *, max_per_second: float | None, max_in_flight: int | None) -> None:
    """Set a destination's limit. None removes the one or the other.

    A smaller limit applies to the tokens that are left, too.
    """
    connection.execute(
        f"""
        WITH wanted AS MATERIALIZED (
            SELECT %(name)s::text AS name, %(rate)s::float8 AS max_per_second, %(in_flight)s::integer AS max_in_flight
        ), limits AS MATERIALIZED (
            SELECT *, CASE WHEN max_per_second IS NOT NULL THEN {BURST} END AS burst FROM wanted
        )
        INSERT INTO outbox_destinations AS d (name, max_per_second, tokens, refilled_at, max_in_flight)
        SELECT name, max_per_second, burst, CASE WHEN burst IS NOT NULL THEN clock_timestamp() END, max_in_flight
          FROM limits
            ON CONFLICT (name) DO UPDATE
           SET max_per_second = excluded.max_per_second,
               tokens = CASE WHEN excluded.tokens IS NOT NULL
                             THEN least(coalesce(d.tokens, excluded.tokens), excluded.tokens) END,
               refilled_at = CASE WHEN excluded.tokens IS NOT NULL
                                  THEN coalesce(d.refilled_at, excluded.refilled_at) END,
               max_in_flight = excluded.max_in_flight,
               in_flight = CASE WHEN excluded.max_in_flight IS NULL THEN '{{}}' ELSE d.in_flight END
        """,  # noqa: S608 - an expression of our own
        {"name": name, "rate": max_per_second, "in_flight": max_in_flight},
    )


def count_in_hand(connection: DbConnection, name: str) -> int:
    """Return how many messages of this destination are claimed. After a pause none is added once it is 0."""
    row = connection.execute(
        "SELECT count(*) FROM outbox WHERE status = 'running' AND destination = %s", [name]
    ).fetchone()
    return 0 if row is None else int(row[0])
