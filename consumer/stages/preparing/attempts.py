"""Prepares messages in transactions: all in one, else each alone, again while PostgreSQL is unavailable."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final
from uuid import uuid4

import structlog
from rq.timeouts import BaseTimeoutException

from consumer.model.message import AttemptResult, ClaimedMessage
from consumer.model.outcomes import Completed, DestinationUnavailable, LeaseOver, Outcome, Released, RenderFailed
from consumer.model.results import Disposition, RecordedResult, StepResult
from consumer.stages.database import OVERTIME, Database, TaskConnection
from consumer.stages.database_retries import RetryPolicy, database_pause
from consumer.stages.preparing.task_calls import FewerAcknowledgedError, TransactionEndedError
from consumer.task import RetryAfter, Unavailable, Undeliverable
from shared.database.connections import LOCK_SECONDS, marking
from shared.database.errors import LOCKED, UNREACHABLE
from shared.outbox.claiming import claims

_log = structlog.get_logger(__name__)

_TOO_LATE: Final = Released("too little of the lease was left to prepare and send the message")
_ALONE_LOCK_SECONDS: Final = 1.0
"""For a message whose row may be the locked one: others, which are prepared, wait for it."""
_LOCKED: Final = Released("a row that the task needs was locked", is_delayed=True)
_LATE_SECONDS: Final = 1.0
_CHANGED_ITS_ROW: Final = RenderFailed("the message's own row was changed while the message was prepared")
_ROLLED_BACK: Final = "a message of this transaction is done or was taken over; what is still ours is prepared again"

Prepare = Callable[[TaskConnection, Sequence[ClaimedMessage], str], StepResult]
"""Prepares messages in a transaction with this marker."""


class PrepareAttempts:
    """Prepares messages so that one that cannot be prepared does not affect the others."""

    def __init__(self, database: Database, policy: RetryPolicy, prepare: Prepare) -> None:
        self._database = database
        self._policy = policy
        self._prepare = prepare

    def run(
        self, messages: Sequence[ClaimedMessage], *, until: float | None = None, lock_seconds: float = LOCK_SECONDS
    ) -> StepResult:
        """Return what the tasks have made of the messages.

        What is done is acknowledged in the transaction that has its effects. If that is not certain, the rows say it:
        a message that is finished, or is not ours any more, is not prepared again.

        Args:
            messages: the messages.
            until: the moment (monotonic) by which the last try begins; by default the end of each lease's time to send.
            lock_seconds: the longest wait for each lock.

        Raises:
            BaseTimeoutException: RQ's alarm has ended work that has an `until`.

        """
        step = StepResult()
        pause = database_pause()
        is_commit_unknown = False
        while True:
            messages = self._in_time(messages, until, step)
            if not messages:
                return step
            try:
                if is_commit_unknown:
                    messages = self._still_ours(messages, step)
                    is_commit_unknown = False
                    continue
                step.add(self._prepare_together(messages, until, lock_seconds))
            except FewerAcknowledgedError:
                step.add(self._prepare_the_rest(messages, until))
            except BaseException as exc:
                if until is not None and isinstance(exc, BaseTimeoutException):
                    raise
                # An error of another connection, which a task has opened, is the task's.
                is_ours = self._database.has_failed and not isinstance(exc, OVERTIME)
                if is_ours and isinstance(exc, LOCKED):
                    step.add(self._divide(messages, until, _LOCKED))
                elif not is_ours or not isinstance(exc, UNREACHABLE):
                    step.add(self._divide(messages, until, _failure(exc)))
                elif self._policy.deadline_passed():
                    step.results.extend(AttemptResult(each, Released(self._database.cause(exc))) for each in messages)
                else:
                    is_commit_unknown = True
                    self._policy.sleep(pause.next())
                    continue
            return step

    def _prepare_together(
        self, messages: Sequence[ClaimedMessage], until: float | None, lock_seconds: float
    ) -> StepResult:
        marker = uuid4().hex
        also = marking(marker) + (b"" if until is None else _lending(until - monotonic()))
        with self._database.transaction(lock_seconds=lock_seconds, also=also) as connection:
            return self._prepare(connection, messages, marker)

    def _divide(self, messages: Sequence[ClaimedMessage], until: float | None, outcome: Outcome) -> StepResult:
        """Return this outcome for one message. Prepare several messages one by one, to find the one that failed."""
        step = StepResult()
        if len(messages) == 1:
            step.results.append(AttemptResult(messages[0], outcome))
            return step
        for each in messages:
            step.add(self.run([each], until=until, lock_seconds=_ALONE_LOCK_SECONDS))
        return step

    def _prepare_the_rest(self, messages: Sequence[ClaimedMessage], until: float | None) -> StepResult:
        """Prepare again what is still ours, after a transaction was rolled back because some of it was not."""
        _log.warning("done.rolled_back", message_ids=[each.claim.id for each in messages], meaning=_ROLLED_BACK)
        step = StepResult()
        try:
            ours = self._still_ours(messages, step)
        except UNREACHABLE as exc:
            cause = Released(self._database.cause(exc))
            step.results.extend(AttemptResult(each, cause) for each in messages)
            return step
        is_as_before = len(ours) == len(messages)
        step.add(self._divide(ours, until, _CHANGED_ITS_ROW) if is_as_before else self.run(ours, until=until))
        return step

    def _still_ours(self, messages: Sequence[ClaimedMessage], step: StepResult) -> Sequence[ClaimedMessage]:
        """Return the messages that are still ours. The others are finished, or were taken over."""
        with self._database.transaction() as connection:
            ours = claims.own_among(connection, [each.claim for each in messages])
            gone = [each for each in messages if each.claim.id not in ours]
            done = claims.done_among(connection, [each.claim.id for each in gone]) if gone else set()
        for each in gone:
            is_done = each.claim.id in done
            disposition = Disposition.DELIVERED if is_done else Disposition.CLAIM_LOST
            step.recorded.append(
                RecordedResult(AttemptResult(each, Completed() if is_done else LeaseOver()), disposition)
            )
        return [each for each in messages if each.claim.id in ours]

    @staticmethod
    def _in_time(messages: Sequence[ClaimedMessage], until: float | None, step: StepResult) -> Sequence[ClaimedMessage]:
        """Return the messages that can still be prepared and sent, and release the others while their leases last."""
        in_time = []
        for each in messages:
            if monotonic() >= (each.lease.send_until if until is None else until):
                step.results.append(AttemptResult(each, _TOO_LATE))
            else:
                in_time.append(each)
        return in_time


def _lending(seconds: float) -> bytes:
    """Return statements for a transaction in a place: its time, and a session without what tasks have left in it.

    A statement that takes too long is ended after the attempt has failed: then the connection is free again.
    """
    limit = f"; SET LOCAL statement_timeout = '{max(0.0, seconds + _LATE_SECONDS) * 1000:.0f}ms'"
    return f"{limit}; RESET ROLE; RESET search_path; UNLISTEN *; SELECT pg_advisory_unlock_all()".encode()


def _failure(exc: BaseException) -> Outcome:
    """Return the outcome for a message whose task has raised this."""
    match exc:
        case Undeliverable():
            return RenderFailed(exc.reason, is_permanent=True)
        case RetryAfter():
            return RenderFailed(exc.reason, retry_after_seconds=exc.seconds)
        case Unavailable():
            return DestinationUnavailable(exc.reason)
        case TransactionEndedError():
            _log.error("task.transaction_ended", meaning=str(exc), fix="remove COMMIT and ROLLBACK from the task's SQL")
            return RenderFailed(str(exc), is_permanent=True)
        case _:
            return RenderFailed(f"{type(exc).__name__} while the message was prepared")
