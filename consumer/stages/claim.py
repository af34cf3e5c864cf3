"""Claiming: from the messages that jobs name to those that are ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from uuid import uuid4

import psycopg
from rq.timeouts import BaseTimeoutException

from consumer.model.lease import Lease
from consumer.model.message import Held
from consumer.model.results import Verdict
from consumer.stages.database import LOCKED, UNREACHABLE, Database
from consumer.stages.retry_policy import Patience, pauses
from consumer.stages.spans import begin_span
from shared.errors import OutboxError
from shared.outage_causes import postgresql_reason
from shared.outbox import claims
from shared.rq_format.read import PoppedJob

Wanted = Mapping[int, PoppedJob | None]
"""Messages by id, with the job that named each."""


@dataclass(frozen=True, slots=True)
class NotHeld:
    """A message that did not become ours, and why."""

    message_id: int
    job: PoppedJob | None
    verdict: Verdict
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What became of the messages that were wanted."""

    held: list[Held] = field(default_factory=list)
    not_held: list[NotHeld] = field(default_factory=list)


class _AwayError(OutboxError):
    """PostgreSQL cannot be used, and nothing of what was wanted is known to be ours."""


class _RefusedError(OutboxError):
    """PostgreSQL refused the claim for a reason that may lie in one of the rows."""


class Claimer:
    """Claims messages, many in one transaction of its own.

    The commit comes before anything is done with a message. So a message that kills its worker, even while its mail is
    prepared, has spent an attempt, and is a dead letter in the end.
    """

    def __init__(self, database: Database, run_lease_seconds: float, patience: Patience) -> None:
        """Keep what every claim needs."""
        self._database = database
        self._run_lease_seconds = run_lease_seconds
        self._patience = patience

    def claim(self, wanted: Wanted) -> Claimed:
        """Claim what can be claimed. A row that cannot be had or read does not keep us from the others."""
        try:
            held = self._claim_patiently(wanted)
        except _AwayError as exc:
            return _none_of(wanted, Verdict.DATABASE_AWAY, str(exc))
        except _RefusedError as exc:
            if len(wanted) == 1:
                return _none_of(wanted, Verdict.DATABASE_AWAY, str(exc))
            return self._claim_each_alone(wanted)
        ours = {each.claim.id for each in held}
        rest = {message_id: job for message_id, job in wanted.items() if message_id not in ours}
        return Claimed(held, _none_of(rest, Verdict.NOT_CLAIMED, None).not_held)

    def _claim_each_alone(self, wanted: Wanted) -> Claimed:
        together = Claimed()
        for message_id, job in wanted.items():
            alone = self.claim({message_id: job})
            together.held.extend(alone.held)
            together.not_held.extend(alone.not_held)
        return together

    def _claim_patiently(self, wanted: Wanted) -> list[Held]:
        """Claim, and ask again while PostgreSQL is away.

        If the answer to the commit was lost, the claims may stand: their token tells. Their leases are then counted
        from the first try, and nobody but us can give the attempts back: so we ask until PostgreSQL answers. One that
        does answer, but lets us not look (somebody holds the whole table locked, say), is asked until the claims' lease
        is over: a relay takes them back then.
        """
        token = uuid4()
        patience_until = monotonic() + self._run_lease_seconds / 3
        first_lease: Lease | None = None
        may_stand: Lease | None = None
        is_locked = False
        for pause in pauses():
            lease = Lease.start(self._run_lease_seconds)
            try:
                with self._database.transaction() as connection:
                    ids = claims.unlocked_among(connection, list(wanted)) if is_locked else list(wanted)
                    fresh = claims.claim(connection, ids, token, self._run_lease_seconds)
                    # Second, because the lost commit may still be under way: the claim waits for its end.
                    found = claims.find_own_claims(connection, list(wanted), token) if first_lease else []
                    may_stand = lease if fresh else may_stand
            except LOCKED as exc:
                # Whoever holds a row for so long is no process of ours: the others are claimed without it.
                if is_locked and _is_too_late(may_stand, patience_until):
                    raise _AwayError(self._database.cause(exc)) from exc
                is_locked = True
            except UNREACHABLE as exc:
                first_lease = first_lease or lease
                impatient = self._patience.is_leaving() or monotonic() + pause > patience_until
                if self._patience.may_give_up() or (impatient and may_stand is None):
                    raise _AwayError(self._database.cause(exc)) from exc
                self._patience.sleep(pause)
            except psycopg.Error as exc:
                if may_stand is None or may_stand.is_over():
                    raise _RefusedError(postgresql_reason(exc)) from exc
                self._patience.sleep(pause)
            except BaseTimeoutException as exc:
                raise _AwayError(type(exc).__name__) from exc
            else:
                leases = dict.fromkeys(found, first_lease or lease) | dict.fromkeys(fresh, lease)
                return [Held(claim, each, wanted[claim.id], begin_span(claim)) for claim, each in leases.items()]
        raise AssertionError  # pauses() never ends


def _is_too_late(may_stand: Lease | None, patience_until: float) -> bool:
    return monotonic() > patience_until if may_stand is None else may_stand.is_over()


def _none_of(wanted: Wanted, verdict: Verdict, reason: str | None) -> Claimed:
    return Claimed([], [NotHeld(message_id, job, verdict, reason) for message_id, job in wanted.items()])
