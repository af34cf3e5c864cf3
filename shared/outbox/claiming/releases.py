"""The statements that make a message pending again without spending an attempt."""

from collections.abc import Mapping, Sequence

from psycopg.types.json import Jsonb

from shared.database.connections import DbConnection
from shared.outbox.claiming.claims import Claim
from shared.outbox.columns import LONGEST_REASON, NEXT_GENERATION, with_counts


def release(
    connection: DbConnection,
    claims: Sequence[Claim],
    reason: str | None,
    *,
    delay_seconds: float = 0,
    spread_seconds: float = 0,
    counts: Mapping[str, object] | None = None,
) -> set[int]:
    """Make claimed messages pending again without spending an attempt; return the ids whose claim was still ours.

    Args:
        connection: in a transaction.
        claims: the claims.
        reason: for the operator; None leaves the former one.
        delay_seconds: the least delay.
        spread_seconds: each message is delayed by a random part of this time more.
        counts: what is counted of the messages from now on, by the names of Counts.

    """
    noted = f", failures = {with_counts('%(counts)s::jsonb')}" if counts else ""
    released = connection.execute(
        f"""
        UPDATE outbox
           SET status = 'pending', generation = {NEXT_GENERATION}, attempt = attempt - 1,
               due_at = clock_timestamp() + make_interval(secs => %(delay)s + random() * %(spread)s),
               claim_token = NULL, lease_until = NULL, broker_epoch = NULL,
               last_error = coalesce(%(reason)s, last_error){noted}
          FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[]) AS claim (message_id, token)
         WHERE id = claim.message_id AND status = 'running' AND claim_token = claim.token
        RETURNING id
        """,  # noqa: S608 - an expression of our own
        {
            "ids": [claim.id for claim in claims],
            "tokens": [claim.token for claim in claims],
            "reason": None if reason is None else reason[:LONGEST_REASON],
            "delay": delay_seconds,
            "spread": spread_seconds,
            "counts": None if counts is None else Jsonb(counts),
        },
    ).fetchall()
    return {row[0] for row in released}


def postpone(
    connection: DbConnection, claim: Claim, *, delay_seconds: float, counts: Mapping[str, object] | None
) -> None:
    """Delay a message that the same transaction has released, and set these counts of it."""
    noted = "" if counts is None else f", failures = {with_counts('%(counts)s::jsonb')}"
    connection.execute(
        f"""
        UPDATE outbox
           SET due_at = greatest(due_at, clock_timestamp() + make_interval(secs => %(delay)s)){noted}
         WHERE id = %(id)s AND status = 'pending'
        """,  # noqa: S608 - an expression of our own
        {"id": claim.id, "delay": delay_seconds, "counts": None if counts is None else Jsonb(counts)},
    )


def release_unclaimed(connection: DbConnection, message_id: int, reason: str, delay_seconds: float) -> bool:
    """Make a published message pending again that this worker cannot claim; no attempt is spent."""
    released = connection.execute(
        f"""
        UPDATE outbox
           SET status = 'pending', generation = {NEXT_GENERATION}, lease_until = NULL, broker_epoch = NULL,
               due_at = clock_timestamp() + make_interval(secs => %s), last_error = %s
         WHERE id = %s AND status = 'published'
        """,  # noqa: S608 - an expression of our own
        [delay_seconds, reason[:LONGEST_REASON], message_id],
    )
    return released.rowcount == 1
