"""The statements of the consumer: claim, acknowledge, fail and renew.

Each function executes one statement, whose conditions make it safe to run concurrently with any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from shared.database.connections import MARKER, DbConnection
from shared.outbox.claiming.known_tasks import DESTINATION, FAILURES, MAX_RETRIES_SET, NO_TASKS, KnownTasks
from shared.outbox.columns import (
    FAILURES_SO_FAR,
    LARGEST_NUMBER,
    LONGEST_REASON,
    MAX_RETRIES,
    NEXT_GENERATION,
    NO_COUNTS,
    READ_COUNTS,
    Counts,
    insert_finished,
    parse_counts,
    with_counts,
)
from shared.outbox.messages import MAIL

_LARGEST_UNFOLDED_BYTES: Final = 4 * 1024 * 1024
_PAYLOAD: Final = f"""
    CASE WHEN pg_column_compression(payload) IS NULL
           OR pg_column_size(jsonb_build_array(payload)) <= {_LARGEST_UNFOLDED_BYTES} THEN payload::text END
"""
"""A stored payload is limited, but may be compressed to a hundredth of its size. The array has the full size."""

_CLAIM: Final = f"""
    id, claim_token, task, {_PAYLOAD}, attempt, {MAX_RETRIES},
    extract(epoch FROM due_at)::float8, extract(epoch FROM published_at)::float8, traceparent, uid,
    failures @> '[{{"unanswered": true}}]', destination, {READ_COUNTS}
"""
"""The columns of a Claim, in the order of its fields."""

_COUNTS: Final = 12
"""The position of the last column, which has to be parsed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that this worker has claimed until its lease is over.

    The payload is JSON text, or None if it would be larger than a message may be when decompressed. Times are seconds
    since the epoch: PostgreSQL has times, such as infinity, that Python's datetime cannot hold.

    Attributes:
        met_silence: an earlier attempt got no answer after the last dot, so this one may wait longer for it.
        destination: the outside system that the work needs.
        counts: what is counted of it beside its failed attempts.
        former_destination: the one that the row named before the claim; None if that is not known.

    """

    id: int
    token: UUID
    task: str
    payload: str | None
    attempt: int
    max_retries: int
    due_at: float
    published_at: float | None
    traceparent: str | None
    uid: UUID
    met_silence: bool
    destination: str = MAIL
    counts: Counts = NO_COUNTS
    former_destination: str | None = field(default=None, compare=False)

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this attempt makes the message a dead letter."""
        return self.attempt > self.max_retries


def claim(
    connection: DbConnection,
    message_ids: Sequence[int],
    token: UUID,
    lease_seconds: float,
    tasks: KnownTasks = NO_TASKS,
) -> list[Claim]:
    """Claim those of the messages that are published, or pending and due, and return the claims.

    A pending row may be claimed too: the relay that pushed its job has not committed yet, or died before it could. In
    the first case this statement waits for that relay's row locks; SKIP LOCKED would delay the message by a lease. The
    generation is not compared: the first job that arrives does the work. A row without a uid gets one here, before its
    first mail is sent, and the destination and number of retries that its task has.
    """
    rows = connection.execute(
        f"""
        UPDATE outbox
           SET status = 'running', attempt = least(attempt, {LARGEST_NUMBER - 1}) + 1,
               claim_token = %(token)s, claimed_at = clock_timestamp(),
               lease_until = clock_timestamp() + make_interval(secs => %(lease)s),
               uid = coalesce(uid, gen_random_uuid()),
               destination = {DESTINATION},
               max_retries = {MAX_RETRIES_SET},
               failures = {FAILURES}
         WHERE id = ANY(%(ids)s::bigint[]) AND (status = 'published' OR (status = 'pending' AND due_at <= now()))
        RETURNING {_CLAIM}, (SELECT former.destination FROM outbox AS former WHERE former.id = outbox.id)
        """,  # noqa: S608 - expressions of our own
        {"ids": list(message_ids), "token": token, "lease": lease_seconds, "tasks": tasks.text},
    ).fetchall()
    return [_claim(*row) for row in rows]


def _claim(*row: Any) -> Claim:  # noqa: ANN401 - the columns of _CLAIM, and the former destination if it is known
    return Claim(*[*row[:_COUNTS], parse_counts(row[_COUNTS]), *row[_COUNTS + 1 :]])


def unlocked_among(connection: DbConnection, message_ids: Sequence[int]) -> list[int]:
    """Lock those of the messages that no other session has locked, and return their ids."""
    rows = connection.execute(
        "SELECT id FROM outbox WHERE id = ANY(%s::bigint[]) FOR UPDATE SKIP LOCKED", [list(message_ids)]
    ).fetchall()
    return [row[0] for row in rows]


def find_own_claims(connection: DbConnection, message_ids: Sequence[int], token: UUID) -> list[Claim]:
    """Return the claims with this token: after a lost answer to the COMMIT they may have been written."""
    rows = connection.execute(
        f"""
        SELECT {_CLAIM}
          FROM outbox
         WHERE id = ANY(%s::bigint[]) AND status = 'running' AND claim_token = %s
        """,  # noqa: S608 - an expression of our own
        [list(message_ids), token],
    ).fetchall()
    return [_claim(*row) for row in rows]


def ack(connection: DbConnection, claims: Sequence[Claim]) -> set[int]:
    """Move the messages into history as done, and return the ids of those whose claim was still ours.

    The lease is not compared: until another process takes a message over, the finished work counts.
    """
    return _finish(connection, claims, "done")


def ack_in(connection: DbConnection, claims: Sequence[Claim], marker: str) -> set[int]:
    """Do the same, provided that the present transaction is the one with this marker; else nothing is done."""
    return _finish(connection, claims, "done", marker=marker)


def discard_claims(connection: DbConnection, reasons: Mapping[Claim, str]) -> set[int]:
    """Move messages that are not needed any more into history as discarded; return the ids that were still ours."""
    texts = [f"discarded: {reason}"[:LONGEST_REASON] for reason in reasons.values()]
    return _finish(connection, list(reasons), "discarded", texts)


def _finish(
    connection: DbConnection,
    claims: Sequence[Claim],
    status: Literal["done", "discarded"],
    reasons: Sequence[str] | None = None,
    marker: str | None = None,
) -> set[int]:
    """Move messages into history. Without a reason the last error stays."""
    in_transaction = "" if marker is None else f"AND {MARKER} = %s"
    finished = connection.execute(
        f"""
        WITH finished AS (
            DELETE FROM outbox
             USING unnest(%s::bigint[], %s::uuid[], %s::text[]) AS claim (message_id, token, reason)
             WHERE id = claim.message_id AND status = 'running' AND claim_token = claim.token {in_transaction}
            RETURNING outbox.*, claim.reason
        )
        {insert_finished("finished", status="%s", last_error="coalesce(reason, last_error)")}
        RETURNING id
        """,  # noqa: S608 - expressions of our own
        [
            [claim.id for claim in claims],
            [claim.token for claim in claims],
            reasons,
            *([] if marker is None else [marker]),
            status,
        ],
    ).fetchall()
    return {row[0] for row in finished}


def own_among(connection: DbConnection, claims: Sequence[Claim]) -> set[int]:
    """Return which of the messages are still ours. It waits for a COMMIT of ours that is still in progress."""
    rows = connection.execute(
        """
        SELECT id
          FROM outbox
          JOIN unnest(%s::bigint[], %s::uuid[]) AS claim (message_id, token) ON id = claim.message_id
         WHERE status = 'running' AND claim_token = claim.token
         ORDER BY id
           FOR UPDATE OF outbox
        """,
        [[claim.id for claim in claims], [claim.token for claim in claims]],
    ).fetchall()
    return {row[0] for row in rows}


def done_among(connection: DbConnection, message_ids: Sequence[int]) -> set[int]:
    """Return which of the messages are finished, by our own acknowledgement if the answer to its COMMIT was lost."""
    rows = connection.execute(
        "SELECT id FROM outbox_finished WHERE id = ANY(%s::bigint[])", [list(message_ids)]
    ).fetchall()
    return {row[0] for row in rows}


def fail(
    connection: DbConnection,
    claim: Claim,
    reason: str,
    *,
    details: Mapping[str, object],
    delay_seconds: float,
    is_dead: bool,
    counts: Mapping[str, object] | None = None,
) -> bool:
    """Record a failed attempt: the message is pending after the delay, or a dead letter.

    Returns False when the claim is no longer ours.

    Args:
        connection: in a transaction.
        claim: the claim.
        reason: for the operator; it contains no address and no secret.
        details: what the entry in `failures` says in addition to number, reason and time.
        delay_seconds: the delay of the next attempt.
        is_dead: whether the message becomes a dead letter.
        counts: what is counted of the message from now on, by the names of Counts.

    """
    kept = FAILURES_SO_FAR
    if counts:
        counted = f"SELECT {with_counts('%(counts)s::jsonb')} AS failures"
        kept = f"(SELECT {FAILURES_SO_FAR} FROM ({counted}) AS counted)"  # noqa: S608 - expressions of our own
    reason = reason[:LONGEST_REASON]
    entry = {"attempt": claim.attempt, "reason": reason, **details}
    failed = connection.execute(
        f"""
        UPDATE outbox
           SET status = CASE WHEN %(dead)s THEN 'dead' ELSE 'pending' END,
               generation = CASE WHEN %(dead)s THEN generation ELSE {NEXT_GENERATION} END,
               due_at = CASE WHEN %(dead)s THEN due_at
                             ELSE clock_timestamp() + make_interval(secs => %(delay)s) END,
               claim_token = NULL, lease_until = NULL, broker_epoch = NULL,
               last_error = %(reason)s,
               failures = {kept}
                   || (%(entry)s::jsonb || jsonb_build_object('at', clock_timestamp()))
         WHERE id = %(id)s AND status = 'running' AND claim_token = %(token)s
        """,  # noqa: S608 - two expressions of our own
        {
            "id": claim.id,
            "token": claim.token,
            "dead": is_dead,
            "delay": delay_seconds,
            "reason": reason,
            "entry": Jsonb(entry),
            "counts": None if counts is None else Jsonb(counts),
        },
    )
    return failed.rowcount == 1
