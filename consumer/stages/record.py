"""The record step: writes the outcome of each message, and retries until PostgreSQL has it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from consumer.model.message import AttemptResult
from consumer.model.outcomes import Completed, RenderFailed
from consumer.model.results import Disposition, RecordedResult
from consumer.stages.database import Database
from consumer.stages.recording.outcome_writer import OutcomeWriter
from shared.database.errors import LOCKED, UNREACHABLE
from shared.outbox.claiming.claims import Claim

_log = structlog.get_logger(__name__)

_LOCK_SECONDS: Final = 1
"""No process of this service locks the row of a running message for this long."""

_RETRY_LOCK_SECONDS: Final = 0.05
"""For an outcome that PostgreSQL has not taken before, alone or with others: others wait until it is tried."""


class ResultRecorder:
    """Writes outcomes, many in one transaction. A mail that was accepted is never recorded as failed."""

    def __init__(self, database: Database, backoff_scale: float) -> None:
        self._database = database
        self._backoff_scale = backoff_scale
        self._unwritten: dict[Claim, AttemptResult] = {}
        """Results that were tried while PostgreSQL was unavailable."""
        self._rejected: dict[Claim, AttemptResult] = {}
        """Results that PostgreSQL rejected, or whose row was locked. Each is retried alone."""
        self._unconfirmed: set[Claim] = set()
        """Claims whose outcome may have been committed, although the answer to the COMMIT was lost."""

    @property
    def has_unwritten(self) -> bool:
        """Whether outcomes are still to be written: call retry after a pause."""
        return bool(self._unwritten or self._rejected)

    def record(self, results: Sequence[AttemptResult]) -> list[RecordedResult]:
        """Try once to write these results and those left over from an outage. Return the ones that are written.

        A result that PostgreSQL rejects is retried alone from then on, so that it does not delay others.
        """
        batch = [*self._unwritten.values(), *results]
        self._unwritten.clear()
        # Of two claims of one message, of which the first was taken over, the row says which counts.
        if 1 < len(batch) == len({each.message.claim.id for each in batch}):
            try:
                return self._record_together(batch, _LOCK_SECONDS)
            except Exception as exc:  # noqa: BLE001 - an exception here would lose all outcomes
                self._mark_unconfirmed(batch, exc)
                if _is_unavailable(exc):
                    self._unwritten = {each.message.claim: each for each in batch}
                    return []
        lock_seconds = _LOCK_SECONDS if len(batch) == 1 else _RETRY_LOCK_SECONDS
        return [recorded for each in batch for recorded in self._record_alone(each, lock_seconds)]

    def retry(self) -> list[RecordedResult]:
        """Try once more to write everything that is left. Return the results that are written."""
        rejected = [*self._rejected.values()]
        self._rejected.clear()
        return [
            *self.record([]),
            *(recorded for each in rejected for recorded in self._record_alone(each, _RETRY_LOCK_SECONDS)),
        ]

    def give_up(self) -> list[RecordedResult]:
        """Return and forget what could not be written: a relay reaps those claims when their leases are over."""
        left = [*self._unwritten.values(), *self._rejected.values()]
        self._unwritten.clear()
        self._rejected.clear()
        return [RecordedResult(each, Disposition.UNACKNOWLEDGED) for each in left]

    def _record_alone(self, result: AttemptResult, lock_seconds: float) -> list[RecordedResult]:
        claim = result.message.claim
        try:
            return self._record_together([result], lock_seconds)
        except Exception as exc:  # noqa: BLE001 - as above
            self._mark_unconfirmed([result], exc)
            if _is_unavailable(exc):
                self._unwritten[claim] = result
            elif not isinstance(exc, LOCKED) and _appends(result):
                # What the handler has appended is refused. Without this the handler would run again and again.
                refused = RenderFailed(f"PostgreSQL refused what the handler appended: {type(exc).__name__}")
                return self._record_alone(replace(result, outcome=refused), lock_seconds)
            elif isinstance(exc, LOCKED) or not result.message.lease.is_over():
                self._rejected[claim] = result
            else:
                # It is rejected and no longer ours: retrying it would never end.
                self._unconfirmed.discard(claim)
                return [RecordedResult(result, Disposition.UNACKNOWLEDGED)]
        return []

    def _mark_unconfirmed(self, batch: Sequence[AttemptResult], exc: Exception) -> None:
        for each in batch:
            if each.message.claim not in self._unconfirmed:
                _log.warning("result.not_written", message_id=each.message.claim.id, error=self._database.cause(exc))
                self._unconfirmed.add(each.message.claim)

    def _record_together(self, batch: Sequence[AttemptResult], lock_seconds: float) -> list[RecordedResult]:
        with self._database.transaction(lock_seconds=lock_seconds) as connection:
            writer = OutcomeWriter(connection, self._backoff_scale, self._unconfirmed)
            dispositions = writer.write(batch)
        for log in writer.after_commit:
            log()
        self._unconfirmed.difference_update(dispositions)
        return [RecordedResult(each, dispositions[each.message.claim]) for each in batch]


def _appends(result: AttemptResult) -> bool:
    return isinstance(result.outcome, Completed) and bool(result.outcome.follow_ups)


def _is_unavailable(exc: Exception) -> bool:
    return isinstance(exc, UNREACHABLE) and not isinstance(exc, LOCKED)
