"""The statements of the reaper: return messages to pending whose worker died, or whose job Redis lost.

Each function executes one statement, whose conditions make it safe to run concurrently with any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared.database.connections import DbConnection, own_transaction
from shared.outbox.columns import FAILURES_SO_FAR, MAX_RETRIES, NEXT_GENERATION
from shared.outbox.discovery import number_array
from shared.outbox.messages import JobRef

POSTMASTER_GRACE_SECONDS: Final = 15.0
"""After a start of PostgreSQL the consumers have this time to acknowledge what they finished while it was down."""

LEASE_ENDED: Final = "the worker died or froze: its lease ended without a result"


class LeaseExpired(NamedTuple):
    """A published row whose job may be lost: its lease is over, or it was pushed in another epoch of Redis."""

    job: JobRef
    same_epoch: bool


@dataclass(frozen=True, slots=True)
class Reaped:
    """A claim whose lease was over, and the state of its message now."""

    id: int
    status: str
    attempt: int


@own_transaction
def reap_running(connection: DbConnection, limit: int, grace_seconds: float = POSTMASTER_GRACE_SECONDS) -> list[Reaped]:
    """Return messages whose claim's lease is over to pending, or make them dead letters if their attempts are spent.

    When a message's worker dies twice in a row, the message is due at a random moment of the next lease. A message that
    kills its worker makes all other messages of that worker fail too. Due at the same moment, they would be claimed
    together again until none has attempts left.

    Only the lease decides, by the database's clock. Locked rows are left for the next sweep.
    """
    # Other programs may write both times: they may be thousands of years apart.
    rows = connection.execute(
        f"""
        WITH expired AS MATERIALIZED (
            SELECT id
              FROM outbox
             WHERE status = 'running' AND lease_until < (SELECT clock_timestamp())
               AND pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => %(grace)s)
             ORDER BY lease_until
             LIMIT %(limit)s
               FOR UPDATE SKIP LOCKED
        )
        UPDATE outbox AS o
           SET status = CASE WHEN attempt > {MAX_RETRIES} THEN 'dead' ELSE 'pending' END,
               generation = CASE WHEN attempt > {MAX_RETRIES} THEN generation ELSE {NEXT_GENERATION} END,
               due_at = CASE WHEN attempt > {MAX_RETRIES} THEN due_at
                             WHEN last_error = %(reason)s
                                 THEN clock_timestamp() + random()
                                     * greatest(interval '0', least(interval '1 day', lease_until - claimed_at))
                             ELSE clock_timestamp() END,
               claim_token = NULL, lease_until = NULL, broker_epoch = NULL,
               last_error = %(reason)s,
               failures = {FAILURES_SO_FAR}
                   || jsonb_build_object('at', clock_timestamp(), 'attempt', attempt, 'reason', %(reason)s::text,
                                         'maybe_accepted', true)
          FROM expired
         WHERE o.id = expired.id AND o.status = 'running' AND o.lease_until < (SELECT clock_timestamp())
        RETURNING o.id, o.status, o.attempt
        """,  # noqa: S608 - expressions of our own
        {"limit": limit, "grace": grace_seconds, "reason": LEASE_ENDED},
    ).fetchall()
    return [Reaped(*row) for row in rows]


@own_transaction
def find_lease_expired(connection: DbConnection, epoch: str, limit: int) -> list[LeaseExpired]:
    """Return published rows whose lease is over or that were pushed in another epoch than `epoch`."""
    # One SELECT for each of three ranges of one index: conditions joined by OR may be planned as a filter over all
    # published rows. The time comes from a SELECT, because an index serves only what cannot change from row to row.
    rows = connection.execute(
        """
        SELECT id, generation, queue, false FROM outbox WHERE status = 'published' AND broker_epoch < %(epoch)s
        UNION ALL
        SELECT id, generation, queue, false FROM outbox WHERE status = 'published' AND broker_epoch > %(epoch)s
        UNION ALL
        SELECT id, generation, queue, true
          FROM outbox
         WHERE status = 'published' AND broker_epoch = %(epoch)s AND lease_until < (SELECT clock_timestamp())
         LIMIT %(limit)s
        """,
        {"epoch": epoch, "limit": limit},
    ).fetchall()
    return [LeaseExpired(JobRef(*job), same_epoch) for *job, same_epoch in rows]


@own_transaction
def renew_found(connection: DbConnection, jobs: Sequence[JobRef], epoch: str, lease_seconds: float) -> int:
    """Renew the leases of rows whose job was found in Redis, in the current epoch; return how many were renewed."""
    # The rows are locked in one order and without waiting: two relays that renew the same rows cannot deadlock, and a
    # row that a consumer is claiming needs no new lease.
    return connection.execute(
        """
        WITH found AS MATERIALIZED (
            SELECT o.id
              FROM outbox AS o
              JOIN unnest(%(ids)s::bigint[], %(generations)s::integer[]) AS job (id, generation) USING (id, generation)
             WHERE o.status = 'published'
             ORDER BY o.id
               FOR UPDATE OF o SKIP LOCKED
        )
        UPDATE outbox AS o
           SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s), broker_epoch = %(epoch)s
          FROM found
         WHERE o.id = found.id
        """,
        {**_id_arrays(jobs), "lease": lease_seconds, "epoch": epoch},
    ).rowcount


@own_transaction
def return_missing(connection: DbConnection, jobs: Sequence[JobRef]) -> list[JobRef]:
    """Make rows pending again whose job Redis lost; return those that were still published in that generation."""
    returned = connection.execute(
        f"""
        WITH missing AS MATERIALIZED (
            SELECT o.id, o.generation AS former
              FROM outbox AS o
              JOIN unnest(%(ids)s::bigint[], %(generations)s::integer[]) AS job (id, generation) USING (id, generation)
             WHERE o.status = 'published'
             ORDER BY o.id
               FOR UPDATE OF o SKIP LOCKED
        )
        UPDATE outbox AS o
           SET status = 'pending', generation = {NEXT_GENERATION}, lease_until = NULL, broker_epoch = NULL
          FROM missing
         WHERE o.id = missing.id
        RETURNING o.id, missing.former, o.queue
        """,  # noqa: S608 - an expression of our own
        _id_arrays(jobs),
    ).fetchall()
    return [JobRef(*row) for row in returned]


def _id_arrays(jobs: Sequence[JobRef]) -> dict[str, str]:
    return {
        "ids": number_array([job.id for job in jobs]),
        "generations": number_array([job.generation for job in jobs]),
    }
