"""The handle step: from a claimed message to what became of its task's handler."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from inspect import isawaitable, isgenerator
from time import monotonic
from typing import Any, Final, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from rq.timeouts import BaseTimeoutException

from consumer.model.mail import Mail
from consumer.model.message import AttemptResult, ClaimedMessage, MessageToHandle
from consumer.model.outcomes import (
    Completed,
    DestinationUnavailable,
    Discarded,
    Failed,
    Outcome,
    Released,
    RenderFailed,
)
from consumer.model.results import StepResult
from consumer.task import Context, RetryAfter, Unavailable, Undeliverable, Webhook
from consumer.task.context import HandledMessage
from consumer.task.registry import AnyTask, TaskRegistry
from shared.database.connections import DbConnection, connect
from shared.database.errors import LOCKED, UNREACHABLE
from shared.outbox.claiming.follow_ups import FollowUp
from shared.outbox.messages import Message
from shared.settings.consumer import ConsumerSettings
from shared.tracing.spans import tracing

_TOO_LATE: Final = Released("too little of the lease was left to begin the handler")
_LEAKED: Final = RenderFailed("the handler left a transaction open: commit it, or use `with context.connect() as …`")
_NO_DATABASE: Final = Released("PostgreSQL was unavailable while the message was handled", is_delayed=True)


class RunningTask(Protocol):
    """A task's function that runs now.

    Attributes:
        until: the moment (monotonic) at which the attempt is late.

    """

    until: float

    def end(self) -> Sequence[ClaimedMessage] | None:
        """Return its messages, with their present leases; None if the attempt was ended as late meanwhile."""
        ...


Begin = Callable[[Sequence[ClaimedMessage], float], AbstractContextManager[RunningTask]]
"""Limits the time of a task's function that may run for so many seconds for these messages."""


class Handler:
    """Calls handlers, one message at a time."""

    def __init__(self, settings: ConsumerSettings, tasks: TaskRegistry, begin: Begin) -> None:
        self._settings = settings
        self._tasks = tasks
        self._begin = begin

    def handle(self, work: MessageToHandle) -> StepResult:
        """Call the handler and return its result. A result that comes too late is none."""
        message = work.message
        task = self._tasks.tasks[message.claim.task]
        try:
            content = task.load(message.claim.payload)
        except Undeliverable as exc:
            return _result(message, RenderFailed(exc.reason, is_permanent=True))
        if monotonic() >= message.lease.begin_until:
            return _result(message, _TOO_LATE)
        with self._begin([message], task.timeout_seconds) as running:
            outcome = self._traced(task, message, content, running.until)
            ours = running.end()
        return StepResult() if ours is None else _result(ours[0], outcome)

    def _traced(self, task: AnyTask, message: ClaimedMessage, content: Any, until: float) -> Outcome:  # noqa: ANN401
        with tracing().span(f"handle {task.name}", "client", parent=message.span.traceparent) as span:
            outcome = self._call(task, message, content, until)
            span.note("outbox.outcome", type(outcome).__name__)
            if not isinstance(outcome, Completed):
                span.failed()
            return outcome

    def _call(self, task: AnyTask, message: ClaimedMessage, content: Any, until: float) -> Outcome:  # noqa: ANN401
        claim = message.claim
        follow_ups: list[FollowUp] = []

        def append(appended: Message, delay_seconds: float) -> None:
            follow_ups.append(FollowUp.of(appended, delay_seconds, claim.traceparent))

        connections = _Connections(self._settings.database_url)
        handled = HandledMessage(claim.id, claim.attempt, str(claim.uid), until)
        context = Context(self._settings, append, message=handled, connect=connections.open)
        outcome: Outcome
        try:
            outcome = _outcome_of(task.handle(context, content) if task.handle else None, follow_ups)
        except BaseException as exc:  # noqa: BLE001 - whatever a handler raises fails its message, not the worker
            outcome = _failure(exc, message, task.timeout_seconds, connections)
        has_leaked = connections.close()
        return _LEAKED if has_leaked and isinstance(outcome, Completed) else outcome


def late(message: ClaimedMessage, timeout_seconds: float) -> Failed:
    """Return the outcome of a task's function that ran for too long. The second time it is permanent."""
    was_late = message.claim.counts.late > 0
    again = " for the second time" if was_late else ""
    reason = f"the task ran for longer than {timeout_seconds:g} s{again}"
    return Failed(reason, is_permanent=was_late, maybe_accepted=True, is_late=True)


def interrupted(message: ClaimedMessage, timeout_seconds: float) -> Failed:
    """Return the outcome of a task's function that RQ's alarm has ended: no lease is renewed there."""
    return late(message, min(timeout_seconds, message.lease.seconds * 2 / 3))


class _Connections:
    """The connections that a handler opens."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._opened: list[DbConnection] = []
        self._has_failed = False

    def open(self) -> DbConnection:
        try:
            connection: DbConnection = connect(self._database_url, "outbox-handler")
            self._opened.append(connection)
            connection.set_autocommit(False)
        except psycopg.Error:
            self._has_failed = True
            raise
        return connection

    def are_lost(self) -> bool:
        """Return whether PostgreSQL was unavailable to the handler."""
        return self._has_failed or any(each.broken for each in self._opened)

    def close(self) -> bool:
        """Close all, and return whether a transaction was open in one."""
        open_ones = [each for each in self._opened if not each.closed]
        has_leaked = any(each.info.transaction_status != TransactionStatus.IDLE for each in open_ones)
        for each in open_ones:
            each.close()
        return has_leaked


def _outcome_of(returned: object, follow_ups: list[FollowUp]) -> Outcome:
    """Return the outcome of a handler that has returned. Most values mean nothing; some show a mistake."""
    match returned:
        case Discarded():
            return returned
        case Undeliverable():
            return RenderFailed(returned.reason, is_permanent=True)
        case Mail() | Webhook() | BaseException():
            return RenderFailed(f"the handler returned {type(returned).__name__}, which only `prepare` may return")
        case _ if isawaitable(returned) or isgenerator(returned):
            return RenderFailed(
                "the handler returned a coroutine or a generator, which nobody runs: write a plain function"
            )
        case _:
            return Completed(tuple(follow_ups))


def _failure(exc: BaseException, message: ClaimedMessage, timeout_seconds: float, connections: _Connections) -> Outcome:
    match exc:
        case Undeliverable():
            return RenderFailed(exc.reason, is_permanent=True)
        case RetryAfter():
            return RenderFailed(exc.reason, retry_after_seconds=exc.seconds)
        case Unavailable():
            return DestinationUnavailable(exc.reason)
        case BaseTimeoutException():
            return interrupted(message, timeout_seconds)
        case _ if isinstance(exc, UNREACHABLE) and not isinstance(exc, LOCKED) and connections.are_lost():
            return _NO_DATABASE
        case _:
            return RenderFailed(f"{type(exc).__name__} while the message was handled")


def _result(message: ClaimedMessage, outcome: Outcome) -> StepResult:
    return StepResult(results=[AttemptResult(message, outcome)])
