"""The claim step: from the message ids that jobs name to the messages that are ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from time import monotonic
from typing import Final
from uuid import uuid4

import psycopg
from rq.timeouts import BaseTimeoutException

from consumer.model.lease import Lease
from consumer.model.message import ClaimedMessage
from consumer.model.results import Disposition
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy, database_pause
from shared.database.connections import LOCK_SECONDS
from shared.database.errors import LOCKED, UNREACHABLE
from shared.errors import OutboxError
from shared.outage_causes import postgresql_reason
from shared.outbox.claiming import claims
from shared.outbox.claiming.claims import Claim
from shared.outbox.claiming.known_tasks import NO_TASKS, KnownTasks
from shared.rq_format.read import PoppedJob
from shared.tracing.spans import NO_SPAN, OpenSpan, tracing

_FIRST_LOCK_SECONDS: Final = 0.5
"""A relay's COMMIT follows its push within milliseconds. A writer's transaction that has appended with a dedup key may
take as long as its business does."""

Wanted = Mapping[int, PoppedJob | None]
"""Message ids, each with the job that named it."""


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """A message that was not claimed, and why."""

    message_id: int
    job: PoppedJob | None
    disposition: Disposition
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The messages that were claimed, and those that were not."""

    claimed: list[ClaimedMessage] = field(default_factory=list)
    not_claimed: list[NotClaimed] = field(default_factory=list)


class _UnavailableError(OutboxError):
    """PostgreSQL cannot be used, and no message is known to be ours."""


class _RejectedError(OutboxError):
    """PostgreSQL rejected the claim. One of the rows may be the cause."""


class Claimer:
    """Claims messages, many in one transaction.

    The claim is committed before anything is done with a message. So a message that kills its worker, even while its
    mail is prepared, has spent an attempt and becomes a dead letter in the end.
    """

    def __init__(
        self, database: Database, run_lease_seconds: float, policy: RetryPolicy, tasks: KnownTasks = NO_TASKS
    ) -> None:
        self._database = database
        self._tasks = tasks
        self._run_lease_seconds = run_lease_seconds
        self._policy = policy

    def claim(self, wanted: Wanted) -> ClaimResult:
        """Claim what can be claimed. The others are claimed even if one row is locked or cannot be read.

        A message whose row stays locked is published again when its publish lease is over.
        """
        try:
            claimed = self._claim_with_retries(wanted)
        except _UnavailableError as exc:
            return _none_of(wanted, Disposition.UNACKNOWLEDGED, str(exc))
        except _RejectedError as exc:
            if len(wanted) == 1:
                return _none_of(wanted, Disposition.UNACKNOWLEDGED, str(exc))
            return self._claim_each_alone(wanted)
        ours = {each.claim.id for each in claimed}
        others = {message_id: job for message_id, job in wanted.items() if message_id not in ours}
        return ClaimResult(claimed, _none_of(others, Disposition.NOT_CLAIMED, None).not_claimed)

    def _claim_each_alone(self, wanted: Wanted) -> ClaimResult:
        together = ClaimResult()
        for message_id, job in wanted.items():
            alone = self.claim({message_id: job})
            together.claimed.extend(alone.claimed)
            together.not_claimed.extend(alone.not_claimed)
        return together

    def _claim_with_retries(self, wanted: Wanted) -> list[ClaimedMessage]:
        """Claim, and retry while PostgreSQL is unavailable.

        If the answer to the COMMIT was lost, the claims may be in the database; their token shows it. Their leases are
        then counted from the first try. No other process can give their attempts back, so this retries until PostgreSQL
        answers. If PostgreSQL answers but the rows cannot be read (another session has locked the whole table, say), it
        retries until the claims' lease is over: then a relay reaps them.
        """
        token = uuid4()
        give_up_at = monotonic() + self._run_lease_seconds / 3
        first_lease: Lease | None = None
        may_be_ours: Lease | None = None
        is_locked = False
        pause = database_pause()
        while True:
            lease = Lease.start(self._run_lease_seconds)
            # A COMMIT without an answer may hold the rows for longer.
            lock_seconds = LOCK_SECONDS if first_lease or is_locked else _FIRST_LOCK_SECONDS
            try:
                with self._database.transaction(lock_seconds=lock_seconds) as connection:
                    ids = claims.unlocked_among(connection, list(wanted)) if is_locked else list(wanted)
                    fresh = claims.claim(connection, ids, token, self._run_lease_seconds, self._tasks)
                    # After the claim: the lost COMMIT may still be in progress, and the claim waits until it ends.
                    found = claims.find_own_claims(connection, list(wanted), token) if first_lease else []
                    may_be_ours = lease if fresh else may_be_ours
            except LOCKED as exc:
                # Claim the others without the rows that are locked.
                if is_locked and _is_too_late(may_be_ours, give_up_at):
                    raise _UnavailableError(self._database.cause(exc)) from exc
                is_locked = True
            except UNREACHABLE as exc:
                first_lease = first_lease or lease
                seconds = pause.next()
                time_is_up = self._policy.shutting_down() or monotonic() + seconds > give_up_at
                if self._policy.deadline_passed() or (time_is_up and may_be_ours is None):
                    raise _UnavailableError(self._database.cause(exc)) from exc
                self._policy.sleep(seconds)
            except psycopg.Error as exc:
                if may_be_ours is None or may_be_ours.is_over():
                    raise _RejectedError(postgresql_reason(exc)) from exc
                self._policy.sleep(pause.next())
            except BaseTimeoutException as exc:
                raise _UnavailableError(type(exc).__name__) from exc
            else:
                leases = dict.fromkeys(found, first_lease or lease) | dict.fromkeys(fresh, lease)
                return [
                    ClaimedMessage(claim, each, wanted[claim.id], _begin_span(claim)) for claim, each in leases.items()
                ]


def _is_too_late(may_be_ours: Lease | None, give_up_at: float) -> bool:
    return monotonic() > give_up_at if may_be_ours is None else may_be_ours.is_over()


def _none_of(wanted: Wanted, disposition: Disposition, reason: str | None) -> ClaimResult:
    return ClaimResult([], [NotClaimed(message_id, job, disposition, reason) for message_id, job in wanted.items()])


def _begin_span(claim: Claim) -> OpenSpan:
    """Begin the span of a claimed message, in the trace that its row names.

    The span of its publication is created here too, from the row's times: the relay reads no message and spends nothing
    on tracing.
    """
    if not tracing().is_on:
        return NO_SPAN
    span = tracing().begin(f"process {claim.task}", "consumer", parent=_add_publish_span(claim))
    span.note("outbox.message_id", claim.id)
    return span


def _add_publish_span(claim: Claim) -> str | None:
    if claim.traceparent is None or claim.published_at is None or not isfinite(claim.due_at):
        return claim.traceparent
    published = tracing().past_span("publish", "producer", claim.traceparent, claim.due_at, claim.published_at)
    return published or claim.traceparent
