"""Preparing: from claimed messages to mails, or to the reason why there is none."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from marshmallow import ValidationError

from consumer.model.message import Ended, Held, Ready
from consumer.model.outcomes import Discarded, NotBegun, NotMade, Outcome
from consumer.stages.database import LOCKED, OVERTIME, UNREACHABLE, Database
from consumer.stages.retry_policy import Patience, pauses
from consumer.task import Mail, Payload, Preparation, UndeliverableError
from consumer.tasks.registry import TASKS
from shared.database.connections import LOCK_SECONDS, DbConnection
from shared.outbox import claims
from shared.outbox.claims import Breaker
from shared.settings.processes import ConsumerSettings

_MAIL_SERVER_AWAY: Final = NotBegun("the mail server is away")
_TOO_LATE: Final = NotBegun("no time was left to prepare and send the mail")
_ALONE_LOCK_SECONDS: Final = 1.0
"""For a message whose row may be the one that is locked: others, whose mails are made, wait for it."""
_LOCKED: Final = NotBegun("a row that its mail needs stayed locked", is_its_own=True)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be sent, and what has ended before that."""

    ready: list[Ready] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)


class Preparer:
    """Lets the tasks make the mails of claimed messages, many in one transaction."""

    def __init__(self, database: Database, settings: ConsumerSettings, patience: Patience) -> None:
        """Keep what every mail needs."""
        self._database = database
        self._settings = settings
        self._patience = patience

    def prepare(self, held: Sequence[Held], *, lock_seconds: float = LOCK_SECONDS) -> Prepared:
        """Make the mails. One that cannot be made does not keep the others from being made."""
        prepared = Prepared()
        for pause in pauses():
            held = self._in_time_to_be_sent(held, prepared)
            if not held:
                return prepared
            try:
                self._prepare_together(held, prepared, lock_seconds)
            except LOCKED:
                self._divide(held, _LOCKED, prepared)
            except OVERTIME as exc:
                self._divide(held, NotMade(f"{type(exc).__name__} while the mail was prepared"), prepared)
            except UNREACHABLE as exc:
                if self._patience.may_give_up():
                    prepared.ended.extend(_unmade(each, NotBegun(self._database.cause(exc))) for each in held)
                    return prepared
                self._patience.sleep(pause)
                continue
            except UndeliverableError as exc:
                self._divide(held, NotMade(exc.reason, is_permanent=True), prepared)
            except Exception as exc:  # noqa: BLE001 - a task's bug is this message's failure, not the worker's
                self._divide(held, NotMade(f"{type(exc).__name__} while the mail was prepared"), prepared)
            return prepared
        raise AssertionError  # pauses() never ends

    @staticmethod
    def _in_time_to_be_sent(held: Sequence[Held], prepared: Prepared) -> Sequence[Held]:
        """Sort out those that could not be sent any more; what is left of their leases is for putting them back."""
        in_time = []
        for each in held:
            if monotonic() >= each.lease.send_until:
                prepared.ended.append(_unmade(each, _TOO_LATE))
            else:
                in_time.append(each)
        return in_time

    def _divide(self, held: Sequence[Held], outcome: Outcome, prepared: Prepared) -> None:
        """Blame the message if it was alone; else prepare each alone, to find the one to blame."""
        if len(held) == 1:
            prepared.ended.append(_unmade(held[0], outcome))
            return
        for each in held:
            alone = self.prepare([each], lock_seconds=_ALONE_LOCK_SECONDS)
            prepared.ready.extend(alone.ready)
            prepared.ended.extend(alone.ended)

    def _prepare_together(self, held: Sequence[Held], prepared: Prepared, lock_seconds: float) -> None:
        with self._database.transaction(lock_seconds=lock_seconds) as connection:
            breaker = claims.read_breaker(connection)
            made = self._make(connection, held, breaker)
        prepared.ready.extend(made.ready)
        prepared.ended.extend(made.ended)

    def _make(self, connection: DbConnection, held: Sequence[Held], breaker: Breaker) -> Prepared:
        made = Prepared()
        payloads: defaultdict[str, dict[int, Payload]] = defaultdict(dict)
        for each in held:
            if breaker.is_open and breaker.probe_id != each.claim.id:
                made.ended.append(Ended(each, _MAIL_SERVER_AWAY, breaker))
                continue
            try:
                payloads[each.claim.task][each.claim.id] = _payload(each)
            except UndeliverableError as exc:
                made.ended.append(Ended(each, NotMade(exc.reason, is_permanent=True), breaker))
        by_id = {each.claim.id: each for each in held}
        preparation = Preparation(connection, self._settings)
        for task, of_task in payloads.items():
            mails = TASKS[task].prepare(preparation, of_task)
            for message_id in of_task:
                made_of_it = mails.get(message_id)
                match made_of_it:
                    case Mail():
                        made.ready.append(Ready(by_id[message_id], made_of_it, breaker))
                    case Discarded():
                        made.ended.append(Ended(by_id[message_id], made_of_it, breaker))
                    case _:
                        made.ended.append(Ended(by_id[message_id], _not_made(made_of_it), breaker))
        return made


def _unmade(held: Held, outcome: Outcome) -> Ended:
    """End a message whose preparation was undone: what the breaker said is not known, so it may be the probe."""
    return Ended(held, outcome, Breaker(is_open=True, probe_id=held.claim.id))


def _not_made(problem: UndeliverableError | None) -> NotMade:
    return NotMade("its task made no mail") if problem is None else NotMade(problem.reason, is_permanent=True)


def _payload(held: Held) -> Payload:
    """Check what the message says. Raises UndeliverableError."""
    task = TASKS.get(held.claim.task)
    if task is None:
        raise UndeliverableError("this consumer knows no such task: register it or deploy the version that has it")
    if held.claim.payload is None:
        raise UndeliverableError("the payload is larger than 4 MiB when it is unfolded: append a smaller one")
    try:
        content = json.loads(held.claim.payload)
    except (ValueError, RecursionError) as exc:  # PostgreSQL takes longer numbers and deeper nesting than Python
        raise UndeliverableError("the payload is malformed: a number is too long or it is nested too deep") from exc
    if not isinstance(content, dict):
        raise UndeliverableError("the payload is malformed: it is not a JSON object")
    try:
        payload: Payload = task.payload.load(content)
    except ValidationError as exc:
        raise UndeliverableError(f"the payload is malformed: {exc.messages}") from exc
    return payload
