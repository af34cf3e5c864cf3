"""Renewing the leases of claimed messages, while their work takes longer than a lease."""

from collections.abc import Sequence

from shared.database.connections import DbConnection
from shared.outbox.claiming.claims import Claim


def renew_claim(connection: DbConnection, claim: Claim, lease_seconds: float) -> bool:
    """Extend a claim's lease from now on. Return False when the claim is no longer ours.

    A lease that is over is renewed too, until another process takes the message over.
    """
    renewed = connection.execute(
        """
        UPDATE outbox
           SET lease_until = clock_timestamp() + make_interval(secs => %s)
         WHERE id = %s AND status = 'running' AND claim_token = %s
        """,
        [lease_seconds, claim.id, claim.token],
    )
    return renewed.rowcount == 1


def renew_claims(connection: DbConnection, claims: Sequence[Claim], lease_seconds: float) -> set[int]:
    """Extend the leases of several claims from now on, and return the ids of those that were extended.

    A row that another session has locked is left out: its outcome may be on its way.
    """
    rows = connection.execute(
        """
        WITH ours AS (
            SELECT id AS message_id
              FROM outbox
              JOIN unnest(%s::bigint[], %s::uuid[]) AS claim (message_id, token) ON id = claim.message_id
             WHERE status = 'running' AND claim_token = claim.token
             ORDER BY id
               FOR UPDATE OF outbox SKIP LOCKED
        )
        UPDATE outbox
           SET lease_until = clock_timestamp() + make_interval(secs => %s)
          FROM ours
         WHERE id = message_id
        RETURNING id
        """,
        [[claim.id for claim in claims], [claim.token for claim in claims], lease_seconds],
    ).fetchall()
    return {row[0] for row in rows}
