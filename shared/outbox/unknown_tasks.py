"""Messages of tasks that a worker does not know: they wait for one that does, and become dead letters after an hour."""

from collections.abc import Sequence

from shared.database.connections import DbConnection
from shared.outbox.claims import Claim
from shared.outbox.columns import FAILURES_SO_FAR, LONGEST_REASON, NEXT_GENERATION

UNKNOWN_TASK = "unknown_task"
"""The mark of the entry in `failures` that has the time of a message's first such release."""


def release_unknown(
    connection: DbConnection, claims: Sequence[Claim], reason: str, *, delay_seconds: float, dead_after_seconds: float
) -> dict[int, bool]:
    """Release messages whose task this worker does not know; make those dead that were first released long ago.

    No attempt is spent. Returns, for each whose claim was still ours, whether it is a dead letter now.

    Args:
        connection: in a transaction.
        claims: the claims.
        reason: for the operator.
        delay_seconds: how long each waits for another worker.
        dead_after_seconds: how long after its first release a message becomes a dead letter.

    """
    rows = connection.execute(
        f"""
        WITH message AS (
            SELECT id, claim_token,
                   (SELECT min(each ->> 'at')
                      FROM jsonb_array_elements(CASE jsonb_typeof(failures) WHEN 'array' THEN failures END) AS each
                     WHERE each @> '{{"{UNKNOWN_TASK}": true}}') AS first_at
              FROM outbox
              JOIN unnest(%(ids)s::bigint[], %(tokens)s::uuid[]) AS claim (message_id, token) ON id = claim.message_id
             WHERE status = 'running' AND claim_token = claim.token
        ), released AS (
            -- Times of one session are comparable as JSON's text. A foreign entry may hold any text.
            SELECT id AS message_id, claim_token AS token, first_at,
                   coalesce(first_at < to_jsonb(clock_timestamp() - make_interval(secs => %(dead_after)s)) #>> '{{}}',
                            false) AS is_dead
              FROM message
        )
        UPDATE outbox
           SET status = CASE WHEN is_dead THEN 'dead' ELSE 'pending' END,
               generation = CASE WHEN is_dead THEN generation ELSE {NEXT_GENERATION} END,
               attempt = CASE WHEN is_dead THEN attempt ELSE attempt - 1 END,
               due_at = CASE WHEN is_dead THEN due_at ELSE clock_timestamp() + make_interval(secs => %(delay)s) END,
               claim_token = NULL, lease_until = NULL, broker_epoch = NULL, last_error = %(reason)s,
               failures = CASE WHEN first_at IS NULL
                               THEN {FAILURES_SO_FAR} || jsonb_build_object(
                                    'attempt', attempt, 'reason', %(reason)s::text, '{UNKNOWN_TASK}', true,
                                    'at', clock_timestamp())
                               -- After an operator's retry the time is counted again.
                               WHEN is_dead
                               THEN (SELECT jsonb_agg(CASE jsonb_typeof(each) WHEN 'object' THEN each - '{UNKNOWN_TASK}'
                                                                              ELSE each END)
                                       FROM jsonb_array_elements(failures) AS each)
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
