"""The prepare step: from claimed messages to what a place can carry out, or to the reason why there is nothing.

The mails of this project's tasks are prepared here, many in one transaction. All other work is only sorted out: it is
prepared or handled in a place of its own, so that a task that waits or takes long delays nobody else.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog

from consumer.model.message import AttemptResult, ClaimedMessage, MessagesToPrepare, MessageToHandle
from consumer.model.outcomes import Released, TaskUnknown
from consumer.model.results import StepResult
from consumer.stages.database import Database, TaskConnection
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.preparing.attempts import PrepareAttempts
from consumer.stages.preparing.task_calls import TaskCalls
from consumer.task.registry import TaskRegistry
from shared.outbox import breaker as breaker_statements
from shared.outbox.breaker import Breaker
from shared.outbox.messages import MAIL
from shared.settings.consumer import ConsumerSettings

_log = structlog.get_logger(__name__)

_BREAKER_OPEN: Final = Released("the mail server is unavailable")


class Preparer:
    """Sorts claimed messages, and has the tasks prepare the mails among them, many in one transaction."""

    def __init__(
        self, database: Database, settings: ConsumerSettings, tasks: TaskRegistry, policy: RetryPolicy
    ) -> None:
        self._tasks = tasks
        self._calls = TaskCalls(settings, tasks)
        self._attempts = PrepareAttempts(database, policy, self._prepare)

    def prepare(self, messages: Sequence[ClaimedMessage]) -> StepResult:
        """Return the work for each message. One whose mail cannot be prepared does not affect the others."""
        # Until the breaker was read, any message may be the probe.
        unread = [each.with_breaker(Breaker(is_open=True, probe_id=each.claim.id)) for each in messages]
        return self._attempts.run(unread)

    def _prepare(self, connection: TaskConnection, messages: Sequence[ClaimedMessage], marker: str) -> StepResult:
        breaker = breaker_statements.read_breaker(connection)
        step = StepResult()
        mails = self._sorted_out([each.with_breaker(breaker) for each in messages], step)
        if mails:
            step.add(self._calls.prepare(connection, mails, marker))
        return step

    def _sorted_out(self, messages: Sequence[ClaimedMessage], step: StepResult) -> list[ClaimedMessage]:
        """Return the messages to prepare here, and add the others to `step`."""
        mails: list[ClaimedMessage] = []
        to_prepare: defaultdict[str, list[ClaimedMessage]] = defaultdict(list)
        unknown: set[str] = set()
        for each in messages:
            task = self._tasks.get(each.claim.task)
            if task is None:
                unknown.add(each.claim.task)
                step.results.append(AttemptResult(each, TaskUnknown()))
            elif each.breaker.is_open and each.breaker.probe_id != each.claim.id:
                step.results.append(AttemptResult(each, _BREAKER_OPEN))
            elif task.handle is not None:
                step.work.append(MessageToHandle(each))
            elif task.destination == MAIL and task.name in self._tasks.own:
                mails.append(each)
            else:
                to_prepare[each.claim.task].append(each)
        step.work.extend(MessagesToPrepare(tuple(of_task)) for of_task in to_prepare.values())
        for name in unknown:
            _log.error("task.unknown", task=name, fix=TaskUnknown().reason)
        return mails
