"""Calls the tasks' `prepare` in a transaction, and acknowledges there what is done."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.pq import TransactionStatus

from consumer.model.mail import Mail
from consumer.model.message import AttemptResult, ClaimedMessage, PreparedMessage
from consumer.model.outcomes import Completed, Discarded, RenderFailed
from consumer.model.results import Disposition, RecordedResult, StepResult
from consumer.stages.database import TaskConnection
from consumer.stages.recording.destination_updates import DestinationUpdates
from consumer.task import Context, Done, Undeliverable, Webhook
from consumer.task.registry import AnyTask, TaskRegistry
from shared.database.connections import MARKER
from shared.errors import OutboxError
from shared.outbox.claiming import claims
from shared.outbox.claiming.follow_ups import FollowUp, append_follow_ups
from shared.outbox.messages import Message
from shared.settings.consumer import ConsumerSettings

ENDED: Final = "the task ended the transaction itself: its writes may have been committed more than once"


class FewerAcknowledgedError(OutboxError):
    """A message that is done in this transaction is not ours any more. Everything has to be rolled back."""


class TransactionEndedError(OutboxError):
    """A task has ended the transaction in which it was called."""


class TaskCalls:
    """Has tasks prepare messages, in the caller's transaction."""

    def __init__(self, settings: ConsumerSettings, tasks: TaskRegistry) -> None:
        self._settings = settings
        self._tasks = tasks

    def prepare(self, connection: TaskConnection, messages: Sequence[ClaimedMessage], marker: str) -> StepResult:
        """Return what is to be sent for each message, or its result.

        Those that are done are acknowledged by the last statement of the transaction.

        Args:
            connection: in a transaction with this marker.
            messages: messages of tasks that have `prepare`.
            marker: the transaction's.

        Raises:
            FewerAcknowledgedError: the transaction has to be rolled back, since it would do again what is done.
            TransactionEndedError: a task has committed or rolled back.
            Exception: whatever a task raises.

        """
        step = StepResult()
        by_task: defaultdict[str, list[ClaimedMessage]] = defaultdict(list)
        for each in messages:
            by_task[each.claim.task].append(each)
        done: list[ClaimedMessage] = []
        for name, of_task in by_task.items():
            done += self._call(self._tasks.tasks[name], connection, of_task, step)
        if connection.info.transaction_status != TransactionStatus.INTRANS:
            if connection.info.transaction_status == TransactionStatus.IDLE:
                raise TransactionEndedError(ENDED)
            connection.execute("SELECT")  # a statement of the task has failed: raise that PostgreSQL refuses the rest
        if done:
            updates = DestinationUpdates(connection, self._settings.backoff_scale)
            _acknowledge(connection, done, marker, updates)
            updates.write()
        step.recorded.extend(RecordedResult(AttemptResult(each, Completed()), Disposition.DELIVERED) for each in done)
        return step

    def _call(
        self, task: AnyTask, connection: TaskConnection, messages: Sequence[ClaimedMessage], step: StepResult
    ) -> list[ClaimedMessage]:
        """Add what the task returns to `step`, and return the messages that are done."""
        loaded: dict[int, Any] = {}
        for each in messages:
            try:
                loaded[each.claim.id] = task.load(each.claim.payload)
            except Undeliverable as exc:
                step.results.append(AttemptResult(each, RenderFailed(exc.reason, is_permanent=True)))
        returned = self._returned(task, connection, loaded) if loaded else {}
        done = []
        for each in messages:
            if each.claim.id not in loaded:
                continue
            match returned.get(each.claim.id):
                case (Mail() | Webhook()) as content:
                    step.work.append(PreparedMessage(each, content))
                case Done():
                    done.append(each)
                case Discarded() as outcome:
                    step.results.append(AttemptResult(each, outcome))
                case Undeliverable() as refusal:
                    step.results.append(AttemptResult(each, RenderFailed(refusal.reason, is_permanent=True)))
                case other:
                    step.results.append(AttemptResult(each, RenderFailed(_wrong(other))))
        return done

    def _returned(self, task: AnyTask, connection: TaskConnection, loaded: Mapping[int, Any]) -> Mapping[int, object]:
        def append(message: Message, delay_seconds: float) -> None:
            append_follow_ups(connection, [FollowUp.of(message, delay_seconds)])

        if task.prepare is None:
            raise OutboxError("a task without prepare was to prepare")
        context = Context(self._settings, append, connection=connection)
        with connection.lent():
            returned: object = task.prepare(context, loaded)
        if not isinstance(returned, Mapping):
            text = f"prepare returned {_kind(returned)} in place of a mapping from message ids"
            return dict.fromkeys(loaded, _Wrong(text))
        return returned


class _Wrong(str):
    """A text that says what a task has returned in place of something usable."""

    __slots__ = ()


def _wrong(returned: object) -> str:
    if isinstance(returned, _Wrong):
        return str(returned)
    if returned is None:
        return "prepare returned nothing for this message"
    return f"prepare returned {_kind(returned)} for this message: it has to be Mail, Webhook, Done() or Undeliverable"


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of the class {type(value).__name__}"


def _acknowledge(
    connection: TaskConnection, done: Sequence[ClaimedMessage], marker: str, updates: DestinationUpdates
) -> None:
    acknowledged = claims.ack_in(connection, [each.claim for each in done], marker)
    if len(acknowledged) < len(done):
        if connection.execute(f"SELECT {MARKER}").fetchone() != (marker,):
            raise TransactionEndedError(ENDED)
        raise FewerAcknowledgedError
    for each in done:
        updates.add_done(each)
