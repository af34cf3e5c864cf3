"""The prepare step: from claimed messages to their mails, or to the reason why there is none."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from marshmallow import ValidationError

from consumer.model.mail import Mail
from consumer.model.message import AttemptResult, ClaimedMessage, PreparedMail
from consumer.model.outcomes import Discarded, Outcome, Released, RenderFailed
from consumer.stages.database import OVERTIME, Database
from consumer.stages.database_retries import RetryPolicy, database_pause
from consumer.task import Payload, Preparation, UndeliverableError
from consumer.tasks.registry import TASKS
from shared.database.connections import LOCK_SECONDS, DbConnection
from shared.database.errors import LOCKED, UNREACHABLE
from shared.outbox import breaker as breaker_statements
from shared.outbox.breaker import Breaker
from shared.settings.consumer import ConsumerSettings

_BREAKER_OPEN: Final = Released("the mail server is unavailable")
_TOO_LATE: Final = Released("too little of the lease was left to prepare and send the mail")
_ALONE_LOCK_SECONDS: Final = 1.0
"""For a message whose row may be the locked one: others, whose mails are ready, wait for it."""
_LOCKED: Final = Released("a row that the mail needs was locked", is_delayed=True)


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """The mails to send, and the results of messages that have none."""

    mails: list[PreparedMail] = field(default_factory=list)
    results: list[AttemptResult] = field(default_factory=list)


class Preparer:
    """Has the tasks prepare the mails of claimed messages, many in one transaction."""

    def __init__(self, database: Database, settings: ConsumerSettings, policy: RetryPolicy) -> None:
        self._database = database
        self._settings = settings
        self._policy = policy

    def prepare(self, messages: Sequence[ClaimedMessage], *, lock_seconds: float = LOCK_SECONDS) -> PrepareResult:
        """Prepare the mails. A message whose mail cannot be prepared does not affect the others."""
        prepared = PrepareResult()
        pause = database_pause()
        while True:
            messages = self._in_time_to_be_sent(messages, prepared)
            if not messages:
                return prepared
            try:
                self._prepare_together(messages, prepared, lock_seconds)
            except LOCKED:
                self._divide(messages, _LOCKED, prepared)
            except OVERTIME as exc:
                self._divide(messages, RenderFailed(f"{type(exc).__name__} while the mail was prepared"), prepared)
            except UNREACHABLE as exc:
                if self._policy.deadline_passed():
                    prepared.results.extend(_unprepared(each, Released(self._database.cause(exc))) for each in messages)
                    return prepared
                self._policy.sleep(pause.next())
                continue
            except UndeliverableError as exc:
                self._divide(messages, RenderFailed(exc.reason, is_permanent=True), prepared)
            except Exception as exc:  # noqa: BLE001 - a task's bug fails its message, not the worker
                self._divide(messages, RenderFailed(f"{type(exc).__name__} while the mail was prepared"), prepared)
            return prepared

    @staticmethod
    def _in_time_to_be_sent(messages: Sequence[ClaimedMessage], prepared: PrepareResult) -> Sequence[ClaimedMessage]:
        """Return the messages that can still be sent, and release the others while their leases last."""
        in_time = []
        for each in messages:
            if monotonic() >= each.lease.send_until:
                prepared.results.append(_unprepared(each, _TOO_LATE))
            else:
                in_time.append(each)
        return in_time

    def _divide(self, messages: Sequence[ClaimedMessage], outcome: Outcome, prepared: PrepareResult) -> None:
        """Return this outcome for one message. Prepare several messages one by one, to find the one that failed."""
        if len(messages) == 1:
            prepared.results.append(_unprepared(messages[0], outcome))
            return
        for each in messages:
            alone = self.prepare([each], lock_seconds=_ALONE_LOCK_SECONDS)
            prepared.mails.extend(alone.mails)
            prepared.results.extend(alone.results)

    def _prepare_together(
        self, messages: Sequence[ClaimedMessage], prepared: PrepareResult, lock_seconds: float
    ) -> None:
        with self._database.transaction(lock_seconds=lock_seconds) as connection:
            breaker = breaker_statements.read_breaker(connection)
            together = self._call_tasks(connection, messages, breaker)
        prepared.mails.extend(together.mails)
        prepared.results.extend(together.results)

    def _call_tasks(
        self, connection: DbConnection, messages: Sequence[ClaimedMessage], breaker: Breaker
    ) -> PrepareResult:
        prepared = PrepareResult()
        payloads: defaultdict[str, dict[int, Payload]] = defaultdict(dict)
        for each in messages:
            if breaker.is_open and breaker.probe_id != each.claim.id:
                prepared.results.append(AttemptResult(each, _BREAKER_OPEN, breaker))
                continue
            try:
                payloads[each.claim.task][each.claim.id] = _payload(each)
            except UndeliverableError as exc:
                prepared.results.append(AttemptResult(each, RenderFailed(exc.reason, is_permanent=True), breaker))
        by_id = {each.claim.id: each for each in messages}
        preparation = Preparation(connection, self._settings)
        for task, of_task in payloads.items():
            returned = TASKS[task].prepare(preparation, of_task)
            for message_id in of_task:
                message, of_message = by_id[message_id], returned.get(message_id)
                match of_message:
                    case Mail():
                        prepared.mails.append(PreparedMail(message, of_message, breaker))
                    case Discarded():
                        prepared.results.append(AttemptResult(message, of_message, breaker))
                    case _:
                        prepared.results.append(AttemptResult(message, _no_mail(of_message), breaker))
        return prepared


def _unprepared(message: ClaimedMessage, outcome: Outcome) -> AttemptResult:
    """Return the result of a message whose preparation was rolled back.

    The breaker was not read, so the message may be the probe.
    """
    return AttemptResult(message, outcome, Breaker(is_open=True, probe_id=message.claim.id))


def _no_mail(problem: UndeliverableError | None) -> RenderFailed:
    if problem is None:
        return RenderFailed("the task returned no mail for this message")
    return RenderFailed(problem.reason, is_permanent=True)


def _payload(message: ClaimedMessage) -> Payload:
    """Return the validated payload. Raises UndeliverableError."""
    task = TASKS.get(message.claim.task)
    if task is None:
        raise UndeliverableError("unknown task: register it in this consumer, or deploy the version that has it")
    if message.claim.payload is None:
        raise UndeliverableError("the payload is larger than 4 MiB when decompressed: append a smaller one")
    try:
        content = json.loads(message.claim.payload)
    except (ValueError, RecursionError) as exc:  # PostgreSQL accepts longer numbers and deeper nesting than Python
        raise UndeliverableError("the payload is malformed: a number is too long, or it is nested too deeply") from exc
    if not isinstance(content, dict):
        raise UndeliverableError("the payload is malformed: it is not a JSON object")
    try:
        payload: Payload = task.payload.load(content)
    except ValidationError as exc:
        raise UndeliverableError(f"the payload is malformed: {exc.messages}") from exc
    return payload
