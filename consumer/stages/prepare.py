"""The prepare step: from claimed messages to what a place can carry out, or to the reason why there is nothing.

The mails of this project's tasks are prepared here, many in one transaction. All other work is only sorted out: it is
prepared or handled in a place of its own, so that a task that waits or takes long delays nobody else.
"""

from collections import defaultdict
from collections.abc import Sequence

import structlog

from consumer.model.message import AttemptResult, ClaimedMessage, MessagesToPrepare, MessageToHandle
from consumer.model.outcomes import Released, TaskUnknown
from consumer.model.results import StepResult
from consumer.stages.database import Database, TaskConnection
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.preparing.attempts import PrepareAttempts
from consumer.stages.preparing.task_calls import TaskCalls
from consumer.task.registry import TaskRegistry
from shared.outbox.destinations import states
from shared.outbox.destinations.states import DestinationState
from shared.outbox.messages import MAIL
from shared.settings.consumer import ConsumerSettings

_log = structlog.get_logger(__name__)


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
        # Until the destinations were read, any message may be a probe.
        unread = [
            each.with_destination(DestinationState(each.claim.destination, is_open=True, probe_id=each.claim.id))
            for each in messages
        ]
        return self._attempts.run(unread)

    def _prepare(self, connection: TaskConnection, messages: Sequence[ClaimedMessage], marker: str) -> StepResult:
        read = states.read_destinations(connection, {each.claim.destination for each in messages})
        step = StepResult()
        mails = self._sorted_out([each.with_destination(read[each.claim.destination]) for each in messages], step)
        if mails:
            step.add(self._calls.prepare(connection, mails, marker))
        return step

    def _sorted_out(self, messages: Sequence[ClaimedMessage], step: StepResult) -> list[ClaimedMessage]:
        """Return the messages to prepare here, and add the others to `step`."""
        mails: list[ClaimedMessage] = []
        to_prepare: defaultdict[tuple[str, int | None], list[ClaimedMessage]] = defaultdict(list)
        unknown: set[str] = set()
        for each in messages:
            task = self._tasks.get(each.claim.task)
            if (blocked := _blocked(each)) is not None:
                step.results.append(AttemptResult(each, blocked))
            elif task is None:
                unknown.add(each.claim.task)
                step.results.append(AttemptResult(each, TaskUnknown()))
            elif task.handle is not None:
                step.work.append(MessageToHandle(each))
            elif task.destination == MAIL and task.name in self._tasks.own:
                mails.append(each)
            else:
                # One that was late before is prepared alone: perhaps it is the cause, and the others are not.
                to_prepare[each.claim.task, each.claim.id if each.claim.counts.late else None].append(each)
        step.work.extend(MessagesToPrepare(tuple(of_task)) for of_task in to_prepare.values())
        for name in unknown:
            _log.error("task.unknown", task=name, fix=TaskUnknown().reason)
        return mails


def _blocked(message: ClaimedMessage) -> Released | None:
    """Return the outcome of a message whose destination is paused, or known to be unavailable; None if it may begin."""
    state = message.destination
    if state.is_paused:
        return Released(f"the destination {state.name} is paused")
    if state.is_open and not message.is_probe:
        return Released(f"the destination {state.name} is unavailable")
    return None
