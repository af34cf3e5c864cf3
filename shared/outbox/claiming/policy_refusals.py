"""The statements about refusals by policy: recorded on the breaker's row, and their attempts returned."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from psycopg.types.json import Jsonb

from shared.database.connections import DbConnection
from shared.outbox.claiming.claims import Claim
from shared.outbox.columns import FAILURES_SO_FAR, LARGEST_ID, LONGEST_REASON, NEXT_GENERATION, parse_failures


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that was refused by policy, as it is recorded on the breaker's row.

    Attributes:
        message_id: the message.
        generation: its generation after the refusal.
        attempt: its attempt after the refusal.
        spent: the attempts that it has spent on refusals.
        recipient: a keyed hash of the address.
        domain: a keyed hash of its domain.
        code: the enhanced status code.
        at: the time of the last refusal, in seconds since the epoch.

    """

    message_id: int
    generation: int
    attempt: int
    spent: int
    recipient: str
    domain: str
    code: str
    at: float


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """The recorded refusals by policy at one moment.

    Attributes:
        is_outage: whether an outage by policy is declared.
        refusals: the recorded refusals, unparsed.
        accepted_at: when a mail was last accepted; times are seconds since the epoch.
        now: the database's time.

    """

    is_outage: bool
    refusals: Any
    accepted_at: float
    now: float


@dataclass(frozen=True, slots=True)
class RowState:
    """The status, generation and attempt of a message's row."""

    status: str
    generation: int
    attempt: int


def lock_breaker(connection: DbConnection) -> None:
    """Lock the breaker's row, so that one transaction at a time records refusals.

    It comes after the locks on the messages' rows: return_attempts skips locked rows.
    """
    connection.execute(
        "INSERT INTO outbox_destinations (name) VALUES ('mail') ON CONFLICT (name) DO UPDATE SET name = excluded.name"
    )


def read_policy_status(connection: DbConnection) -> PolicyStatus:
    """Return the refusals on the breaker's row, and when a message was last done.

    Acknowledgements write nothing for this, because they are frequent and refusals by policy are rare.
    """
    row = connection.execute(
        """
        SELECT b.opened_at IS NOT NULL AND b.policy_code IS NOT NULL, b.refusals,
               coalesce(extract(epoch FROM greatest(b.accepted_at, (
                   SELECT finished_at
                     FROM outbox_finished
                    WHERE finished_at <= (SELECT clock_timestamp()) AND destination = 'mail' AND status = 'done'
                    ORDER BY finished_at DESC
                    LIMIT 1
               ))), 0)::float8,
               extract(epoch FROM clock_timestamp())::float8
          FROM outbox_destinations AS b
         WHERE b.name = 'mail'
        """
    ).fetchone()
    return PolicyStatus(is_outage=False, refusals=[], accepted_at=0.0, now=0.0) if row is None else PolicyStatus(*row)


def read_failures(connection: DbConnection, message_ids: Sequence[int]) -> dict[int, Any]:
    """Return the failed attempts of the messages."""
    rows = connection.execute(
        "SELECT id, failures::text FROM outbox WHERE id = ANY(%s::bigint[])", [list(message_ids)]
    ).fetchall()
    return {id_: parse_failures(text) for id_, text in rows}


def release_refused(connection: DbConnection, claim: Claim, reason: str, first_code: str | None) -> bool:
    """Release a message that met an outage by policy, without spending an attempt. False when it is no longer ours.

    It is due at once, behind messages that have waited longer. Only a first refusal is added to its failures, where the
    next one finds it; more of them would displace other failures.
    """
    entry = {"attempt": claim.attempt, "reason": reason[:LONGEST_REASON], "maybe_accepted": False, "given_back": True}
    released = connection.execute(
        f"""
        UPDATE outbox
           SET status = 'pending', generation = {NEXT_GENERATION}, attempt = attempt - 1, due_at = clock_timestamp(),
               claim_token = NULL, lease_until = NULL, broker_epoch = NULL, last_error = %(reason)s,
               failures = CASE WHEN %(first)s::jsonb IS NULL THEN failures
                               ELSE {FAILURES_SO_FAR}
                                   || (%(first)s::jsonb || jsonb_build_object('at', clock_timestamp())) END
         WHERE id = %(id)s AND status = 'running' AND claim_token = %(token)s
        """,  # noqa: S608 - two expressions of our own
        {
            "id": claim.id,
            "token": claim.token,
            "reason": reason[:LONGEST_REASON],
            "first": None if first_code is None else Jsonb({**entry, "policy_code": first_code}),
        },
    )
    return released.rowcount == 1


def read_row_states(connection: DbConnection, message_ids: Sequence[int]) -> dict[int, RowState]:
    """Return the present states of the messages, with this transaction's own writes."""
    rows = connection.execute(
        "SELECT id, status, generation, attempt FROM outbox WHERE id = ANY(%s::bigint[])", [list(message_ids)]
    ).fetchall()
    return {id_: RowState(*state) for id_, *state in rows}


_LARGEST_READ_BYTES: Final = 8192

_USERNAME: Final = f"""
    CASE WHEN pg_column_compression(waiting.payload) IS NULL
          AND pg_column_size(waiting.payload) <= {_LARGEST_READ_BYTES} THEN waiting.payload ->> 'username' END
"""
"""Our payloads are small. Those of other programs may be compressed to a hundredth of their size."""


def another_domain_waits(connection: DbConnection, domain: str) -> bool:
    """Return whether mail to another domain is due, published or running, among the first thousand of each.

    A row that names no destination may be a mail.
    """
    row = connection.execute(
        f"""
        SELECT EXISTS (
            SELECT
              FROM (
                  (SELECT due.payload
                     FROM unnest(ARRAY['critical', 'default']) AS source (queue),
                          unnest(ARRAY['mail', '']) AS wanted (name),
                          LATERAL (
                              -- Bounds and order name all columns of outbox_due_idx: no other index has this order.
                              SELECT payload
                                FROM outbox
                               WHERE status = 'pending' AND due_at <= now()
                                 AND (queue, coalesce(destination, ''), due_at, id)
                                   > (source.queue, wanted.name, timestamptz '-infinity', 0)
                                 AND (queue, coalesce(destination, ''), due_at, id)
                                  <= (source.queue, wanted.name, now(), %(largest)s::bigint)
                               ORDER BY queue, coalesce(destination, ''), due_at, id
                               LIMIT 1000
                          ) AS due)
                  UNION ALL
                  (SELECT payload
                     FROM (SELECT payload, destination FROM outbox WHERE status = 'published' LIMIT 10000) AS published
                    WHERE coalesce(destination, '') IN ('mail', '')
                    LIMIT 1000)
                  UNION ALL
                  (SELECT payload FROM outbox WHERE status = 'running' AND destination = 'mail' LIMIT 1000)
              ) AS waiting
              JOIN users ON users.username = {_USERNAME}
             WHERE substring(lower(users.email) FROM '[^@]*$') <> %(domain)s
        )
        """,  # noqa: S608 - an expression of our own
        {"domain": domain, "largest": LARGEST_ID},
    ).fetchone()
    return row is not None and bool(row[0])


def note_refusals(connection: DbConnection, refusals: Sequence[Refusal], outage_code: str | None) -> None:
    """Store exactly these refusals; a code marks the declared outage as one by policy."""
    connection.execute(
        "UPDATE outbox_destinations SET refusals = %s, policy_code = coalesce(%s, policy_code) WHERE name = 'mail'",
        [Jsonb([asdict(each) for each in refusals]), outage_code],
    )


def return_attempts(connection: DbConnection, refusals: Sequence[Refusal]) -> set[int]:
    """Return the attempts that were spent on refusals, make the messages due now, and return their ids.

    Only rows that are unchanged since the refusal are updated: not those that were retried, claimed again, or failed in
    another way. A dead letter that died of the refusal becomes pending. Locked rows are left for the next time.
    """
    given = connection.execute(
        f"""
        WITH owed AS MATERIALIZED (
            SELECT o.id, refusal.spent
              FROM outbox AS o
              JOIN unnest(%(ids)s::bigint[], %(generations)s::integer[], %(attempts)s::integer[], %(spent)s::integer[])
                   AS refusal (id, generation, attempt, spent) USING (id, generation, attempt)
             WHERE o.status IN ('pending', 'published', 'dead')
             ORDER BY o.id
               FOR UPDATE OF o SKIP LOCKED
        )
        UPDATE outbox AS o
           SET attempt = greatest(0, o.attempt - owed.spent),
               status = CASE WHEN o.status = 'dead' THEN 'pending' ELSE o.status END,
               generation = CASE WHEN o.status = 'dead' THEN {NEXT_GENERATION} ELSE o.generation END,
               due_at = CASE WHEN o.status = 'published' THEN o.due_at ELSE clock_timestamp() END
          FROM owed
         WHERE o.id = owed.id
        RETURNING o.id
        """,  # noqa: S608 - an expression of our own
        {
            "ids": [each.message_id for each in refusals],
            "generations": [each.generation for each in refusals],
            "attempts": [each.attempt for each in refusals],
            "spent": [each.spent for each in refusals],
        },
    ).fetchall()
    return {id_ for (id_,) in given}
