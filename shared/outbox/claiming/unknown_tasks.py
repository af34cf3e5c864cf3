"""Messages of tasks that a worker does not know: they wait for one that does, and become dead letters after an hour."""

from collections.abc import Sequence
from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.claiming.claims import Claim
from shared.outbox.columns import FAILURES_SO_FAR, LONGEST_REASON, NEXT_GENERATION, with_counts

_SINCE_NOW: Final = with_counts("jsonb_build_object('unknown_since', extract(epoch FROM clock_timestamp())::float8)")


def release_unknown(
    connection: DbConnection, claims: Sequence[Claim], reason: str, *, delay_seconds: float, dead_after_seconds: float
) -> dict[int, bool]:
    """Release messages whose task this worker does not know; make those dead that were first released long ago.

    No attempt is spent. The counts keep the time of the first release; a claim by a worker that knows the task ends it.
    Returns, for each whose claim was still ours, whether it is a dead letter now.

    Args:
        connection: in a transaction.
        claims: the claims.
        reason: for the operator.
        delay_seconds: how long each waits for another worker.
        dead_after_seconds: how long after its first release a message becomes a dead letter.

    """
    rows = connection.execute(
        f"""
        WITH released AS (
            -- JSON's numbers are compared without a cast, which could fail for what another program has written.
            SELECT id AS message_id, claim_token AS token,
                   coalesce(failures #> '{{0,counts,unknown_since}}'
                            < to_jsonb(extract(epoch FROM clock_timestamp())::float8 - %(dead_after)s::float8),
                            false) AS is_dead
              FROM outbox
              JOIN unnest(%(ids)s::bigint[], %(tokens)s::uuid[]) AS claim (message_id, token) ON id = claim.message_id
             WHERE status = 'running' AND claim_token = claim.token
        )
        UPDATE outbox
           SET status = CASE WHEN is_dead THEN 'dead' ELSE 'pending' END,
               generation = CASE WHEN is_dead THEN generation ELSE {NEXT_GENERATION} END,
               attempt = CASE WHEN is_dead THEN attempt ELSE attempt - 1 END,
               due_at = CASE WHEN is_dead THEN due_at ELSE clock_timestamp() + make_interval(secs => %(delay)s) END,
               claim_token = NULL, lease_until = NULL, broker_epoch = NULL, last_error = %(reason)s,
               failures = CASE WHEN is_dead
                               THEN {FAILURES_SO_FAR} || jsonb_build_object(
                                    'attempt', attempt, 'reason', %(reason)s::text, 'at', clock_timestamp())
                               WHEN failures #> '{{0,counts,unknown_since}}' IS NULL THEN {_SINCE_NOW}
                               ELSE failures END
          FROM released
         WHERE id = message_id AND status = 'running' AND claim_token = token
        RETURNING id, is_dead
        """,  # noqa: S608 - expressions of our own
        {
            "ids": [claim.id for claim in claims],
            "tokens": [claim.token for claim in claims],
            "reason": reason[:LONGEST_REASON],
            "delay": delay_seconds,
            "dead_after": dead_after_seconds,
        },
    ).fetchall()
    return {row[0]: row[1] for row in rows}
