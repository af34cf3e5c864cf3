"""A place: carries out one unit of work after the other. A worker has as many as it has senders."""

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Final

from rq.timeouts import BaseTimeoutException

from consumer.model.message import (
    AttemptResult,
    ClaimedMessage,
    MessagesToPrepare,
    MessageToHandle,
    PreparedMessage,
    Work,
)
from consumer.model.outcomes import Failed, Released, RenderFailed
from consumer.model.results import StepResult
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.handle import Begin, Handler, interrupted
from consumer.stages.limiter import Limiter
from consumer.stages.preparing.attempts import PrepareAttempts
from consumer.stages.preparing.task_calls import TaskCalls
from consumer.stages.send import Sender
from consumer.task.registry import TaskRegistry
from shared.settings.consumer import ConsumerSettings

_TOO_LATE: Final = Released("too little of the lease was left to begin the preparation")


class Place:
    """Prepares, sends or handles, for one thread."""

    def __init__(
        self,
        settings: ConsumerSettings,
        tasks: TaskRegistry,
        policy: RetryPolicy,
        sender: Sender,
        begin: Begin,
        limiter: Limiter,
        *,
        database: Database | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            settings: the consumer's settings.
            tasks: the tasks that this consumer knows.
            policy: how to wait while PostgreSQL is unavailable.
            sender: sends what is prepared.
            begin: limits the time of the tasks' functions.
            limiter: says whether a message may begin, by the limit of its destination.
            database: the connection for work that is prepared here; by default one of the place's own.

        """
        self._database = database or Database(settings.database_url)
        self._attempts = PrepareAttempts(self._database, policy, TaskCalls(settings, tasks).prepare)
        self._sender = sender
        self._begin = begin
        self._handler = Handler(settings, tasks, begin)
        self._limiter = limiter
        self._tasks = tasks
        self._backoff_since: float | None = None

    @property
    def busy_since(self) -> float | None:
        """When (monotonic) the send, or the call of a task's backoff, started; None between them.

        The functions prepare and handle have a limit of their own.
        """
        return self._sender.busy_since if self._backoff_since is None else self._backoff_since

    def carry_out(self, work: Work) -> StepResult:
        """Carry it out, and return the results, or what is to be sent now."""
        match work:
            case PreparedMessage(message) | MessageToHandle(message) if refusal := self._limiter.refusal(message):
                return StepResult(results=[AttemptResult(message, refusal)])
            case PreparedMessage():
                step = StepResult(results=[self._sender.send(work)])
            case MessageToHandle():
                step = self._handler.handle(work)
            case MessagesToPrepare():
                step = self._prepare(work.messages)
        return replace(step, results=[self._with_delay(each) for each in step.results])

    def _prepare(self, messages: Sequence[ClaimedMessage]) -> StepResult:
        late = [each for each in messages if monotonic() >= each.lease.begin_until]
        step = StepResult(results=[AttemptResult(each, _TOO_LATE) for each in late])
        in_time = [each for each in messages if each not in late]
        if not in_time:
            return step
        task = self._tasks.tasks[in_time[0].claim.task]
        with self._begin(in_time, task.timeout_seconds) as running:
            try:
                prepared = self._attempts.run(in_time, until=running.until)
            except BaseTimeoutException:
                outcomes = [AttemptResult(each, interrupted(each, task.timeout_seconds)) for each in in_time]
                prepared = StepResult(results=outcomes)
            ours = running.end()
        if ours is not None:
            step.add(prepared.with_leases({each.claim.id: each.lease for each in ours}))
        return step

    def _with_delay(self, result: AttemptResult) -> AttemptResult:
        """Return a failed result with the delay that its task's backoff says: user code is called here alone."""
        outcome, claim = result.outcome, result.message.claim
        if not isinstance(outcome, Failed | RenderFailed) or outcome.retry_after_seconds is not None:
            return result
        self._backoff_since = monotonic()
        try:
            seconds = self._tasks.delay_seconds(claim.task, claim.attempt)
        finally:
            self._backoff_since = None
        return replace(result, outcome=replace(outcome, retry_after_seconds=seconds))

    def mark_slow(self, name: str) -> None:
        """Note for the relays that a destination is slow."""
        self._limiter.mark_slow(name)

    def close(self) -> None:
        """Close all connections, with that of the limiter, which other places may share and open again."""
        self._limiter.close()
        self._sender.close()
        self._database.close()
