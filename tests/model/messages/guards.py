"""The clauses that the protocol insists on. A test leaves each one out and shows what then goes wrong."""

from __future__ import annotations

from enum import Enum


class Guard(Enum):
    """One clause: the step it belongs to and what it says."""

    TAKE_DUE = "take_batch: due_at <= now()"
    LOCK_TAKE = "take_batch: FOR UPDATE"
    ONE_CONNECTION = "publish: a dead connection ends the batch, nothing of it is run on a new one"
    MARK_STATUS_PENDING = "mark_published: status='pending'"
    NO_PUSH_REPEAT = "push: the client does not send a MULTI again whose reply was lost"
    EPOCH_IN_MULTI = "push, read_lists: the epoch is read in the same MULTI"
    EPOCH_ON_ROW = "mark_published, renew_found: the epoch is kept on each row"
    CLAIM_STATUS = "claim: status is published or pending"
    CLAIM_PENDING = "claim: pending will do, not only published"
    CLAIM_ANY_GENERATION = "claim: generations are not compared"
    CLAIM_DUE = "claim: a pending row only when it is due"
    CLAIM_COUNTS = "claim: attempt + 1"
    CLAIM_WAITS_FOR_LOCK = "claim: waits for the row's lock, no SKIP LOCKED"
    FIND_OWN_CLAIM = "find_own_claim: after a lost commit reply the consumer looks for its own token"
    FIND_WAITS_FOR_LOCK = "find_own_claim: behind a statement that waits for the lock of the commit in doubt"
    LEASE_CHECK_BEFORE_DOT = "send: the lease is checked directly before the last dot"
    SILENCE_SPENDS = "send: silence after the last dot is a fail, not an outage"
    RENEW_FIRST = "send: waits for an answer past its deadline only under a renewed lease"
    RENEW_ANSWERED = "renew_claim: a lease counts as renewed when PostgreSQL has said so"
    RENEW_TOKEN = "renew_claim: claim_token=:t"  # noqa: S105 - a clause, not a password
    ACK_TOKEN = "ack: claim_token=:t"  # noqa: S105 - the same
    ACK_IGNORES_LEASE = "ack: does not ask whether the lease is over"
    ACK_REPEATED = "ack: repeated until it is answered, never turned into a fail"
    FAIL_TOKEN = "fail: claim_token=:t"  # noqa: S105 - the same
    FAIL_DEAD = "fail: dead when attempt > max_retries"
    RELEASE_TOKEN = "release: claim_token=:t"  # noqa: S105 - the same
    RELEASE_GIVES_BACK = "release: attempt - 1"
    DISCARD_CLAIMS_TOKEN = "discard_claims: claim_token=:t"  # noqa: S105 - the same
    REAP_RUNNING = "reap_running: it exists"
    REAP_RUNNING_LEASE = "reap_running: lease_until < clock_timestamp()"
    REAP_RUNNING_DEAD = "reap_running: dead when attempt > max_retries"
    REAP_RUNNING_GRACE = "reap_running: not directly after PostgreSQL came back"
    PUBLISHED_LEASE = "find_lease_expired: published rows whose lease is over"
    ROWS_BEFORE_LISTS = "find_lease_expired: before read_lists"
    READ_LISTS = "read_lists: what stands in a list is not missing"
    TWO_ROUNDS = "return_missing: missing in two rounds where the epoch is the same"
    ROUNDS_APART = "return_missing: the two rounds are further apart than a pop-to-claim takes"
    RENEW_STATUS = "renew_found: status='published'"
    RENEW_GENERATION = "renew_found: generation=:g"
    RETURN_STATUS = "return_missing: status='published'"
    RETURN_GENERATION = "return_missing: generation=:g"
    NEW_GENERATION = "every return to pending: generation + 1"
    RETRY_STATUS = "retry: status='dead'"
    DISCARD_STATUS = "discard: status is dead or pending"

    # Enum computes its hash in Python, and the steps ask for it millions of times.
    __hash__ = object.__hash__
