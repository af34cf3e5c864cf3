"""One message from its claim to its outcome. The same code runs in RQ's stock worker and in OutboxWorker."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Final
from uuid import uuid4

import psycopg
import structlog
from marshmallow import ValidationError
from rq.timeouts import BaseTimeoutException

from consumer import statements
from consumer.backoff import OUTAGE_SECONDS, retry_delay_seconds
from consumer.database import UNREACHABLE, Database, pauses
from consumer.lease import Lease
from consumer.mails import compose
from consumer.outcomes import Accepted, Failed, LeaseOver, Outage, Outcome
from consumer.registry import TASKS
from consumer.smtp import Envelope, Mailer
from consumer.statements import Breaker, Claim
from consumer.task import DbConnection, Preparation, UndeliverableError
from shared.settings import ConsumerSettings

_log = structlog.get_logger(__name__)

_LONGEST_PAUSE_SECONDS: Final = 2.0


class Verdict(Enum):
    """What became of a message in this worker's hands."""

    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"
    PUT_BACK = "put_back"
    NOT_CLAIMED = "not_claimed"
    """Somebody has it, it is finished, it is not due, or there is no such message: nothing to do."""
    NOT_OURS_ANY_MORE = "not_ours_any_more"
    """The lease was over and the message taken back before the outcome could be written."""
    DATABASE_AWAY = "database_away"
    """PostgreSQL did not answer. What was claimed is taken back by a relay when its lease is over."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A message that is claimed and ready to be sent."""

    claim: Claim
    lease: Lease
    breaker: Breaker
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class _Ended:
    """A message that is out of our hands, and why."""

    verdict: Verdict
    claim: Claim | None = None
    reason: str | None = None


class Processor:
    """Works on one message at a time, in one thread."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        may_give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Keep what every message needs; connections are opened at their first use.

        Args:
            settings: the consumer's settings.
            sleep: waits between two tries to reach PostgreSQL.
            may_give_up: asked while an outcome waits for PostgreSQL to come back: is this process told to leave?

        """
        self._settings = settings
        self._sleep = sleep
        self._may_give_up = may_give_up
        self.handling_since: float | None = None
        """Since when (monotonic) a message is claimed, prepared and sent; writing its outcome may take any time."""
        self._database = Database(settings.database_url)
        self._mailer = Mailer(
            settings.smtp_server, step_seconds=settings.smtp_timeout_seconds, helo_name=settings.mail_from.domain
        )

    def process(self, message_id: int) -> Verdict:
        """Claim the message, do what it asks for, and record the outcome: one log line says what became of it."""
        started = monotonic()
        ended = self._work_on(message_id)
        tell = _log.warning if ended.verdict is Verdict.DEAD else _log.info
        tell(
            "message",
            message_id=message_id,
            verdict=ended.verdict.value,
            task=None if ended.claim is None else ended.claim.task,
            attempt=None if ended.claim is None else ended.claim.attempt,
            reason=ended.reason,
            seconds=round(monotonic() - started, 3),
        )
        return ended.verdict

    def database_answers(self) -> bool:
        """Tell whether PostgreSQL can be used at this moment."""
        try:
            with self._database.transaction():
                return True
        except psycopg.Error:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._mailer.close()
        self._database.close()

    def _work_on(self, message_id: int) -> "_Ended":
        self.handling_since = monotonic()
        try:
            work = self._claim(message_id)
            if isinstance(work, _Ended):
                return work
            outcome = self._send(work)
        finally:
            self.handling_since = None
        return _Ended(self._record(work, outcome), work.claim, getattr(outcome, "reason", None))

    def _claim(self, message_id: int) -> "_Work | _Ended":
        """Claim the message and prepare its mail, in one transaction the first time.

        A message that came back is claimed by a commit of its own: if its task kills the worker, the attempt is spent.

        If the answer to the commit was lost, the claim may stand: its token tells. The lease is then counted from the
        first try, and nobody but us can give the attempt back: so we ask until PostgreSQL answers.
        """
        token = uuid4()
        patience_until = monotonic() + self._settings.run_lease_seconds / 3
        first_lease: Lease | None = None
        may_stand = False
        for pause in pauses(_LONGEST_PAUSE_SECONDS):
            lease = Lease.start(self._settings.run_lease_seconds)
            try:
                with self._database.transaction() as connection:
                    claim = statements.claim(connection, message_id, token, self._settings.run_lease_seconds)
                    if claim is None and first_lease is not None:
                        # Second, because the lost commit may still be under way: the claim waits for its end.
                        claim, lease = statements.find_own_claim(connection, message_id, token), first_lease
                        if claim is not None and lease.is_over():
                            statements.put_back(connection, claim, None)
                            return _Ended(Verdict.PUT_BACK, claim, "PostgreSQL was away for longer than the lease")
                    if claim is None:
                        return _Ended(Verdict.NOT_CLAIMED)
                    may_stand = True
                    if not claim.came_back:
                        return self._prepare(connection, claim, lease)
                with self._database.transaction() as connection:
                    return self._prepare(connection, claim, lease)
            except UNREACHABLE as exc:
                first_lease = first_lease or lease
                if self._may_give_up() or (not may_stand and monotonic() + pause > patience_until):
                    return _Ended(Verdict.DATABASE_AWAY, reason=type(exc).__name__)
                self._wait_for_postgresql(pause)
            except (psycopg.Error, BaseTimeoutException) as exc:
                return _Ended(Verdict.DATABASE_AWAY, reason=type(exc).__name__)
        raise AssertionError  # pauses() never ends

    def _wait_for_postgresql(self, seconds: float) -> None:
        """Pause between two tries; a slot that waits for PostgreSQL is not one that hangs."""
        self.handling_since = None
        self._sleep(seconds)
        self.handling_since = monotonic()

    def _prepare(self, connection: DbConnection, claim: Claim, lease: Lease) -> "_Work | _Ended":
        """Make the mail inside the claim's transaction; what cannot be sent is recorded in the same one."""
        breaker = statements.read_breaker(connection, claim.id)
        if breaker.is_open and not breaker.is_probe:
            statements.put_back(connection, claim, None)
            return _Ended(Verdict.PUT_BACK, claim, "the mail server is away")
        try:
            with connection.transaction():
                envelope = self._compose(connection, claim)
        except UndeliverableError as exc:
            failure = Failed(str(exc), is_permanent=True)
        except UNREACHABLE:
            raise
        except Exception as exc:  # noqa: BLE001 - a task's bug is this message's failure, not the worker's
            failure = Failed(f"{type(exc).__name__} while the mail was prepared")
        else:
            return _Work(claim, lease, breaker, envelope)
        verdict = self._fail(connection, claim, failure)
        statements.release_probe(connection, claim.id)
        return _Ended(verdict, claim, failure.reason)

    def _compose(self, connection: DbConnection, claim: Claim) -> Envelope:
        task = TASKS.get(claim.task)
        if task is None:
            raise UndeliverableError("this consumer knows no such task: register it or deploy the version that has it")
        try:
            content = json.loads(claim.payload)
        except (ValueError, RecursionError) as exc:  # PostgreSQL takes longer numbers and deeper nesting than Python
            raise UndeliverableError("the payload is malformed: a number is too long or it is nested too deep") from exc
        if not isinstance(content, dict):
            raise UndeliverableError("the payload is malformed: it is not a JSON object")
        try:
            payload = task.payload().load(content)
        except ValidationError as exc:
            raise UndeliverableError(f"the payload is malformed: {exc.messages}") from exc
        mail = task.prepare(Preparation(connection, claim.id, self._settings), payload)
        return compose(mail, claim.id, self._settings.mail_from)

    def _send(self, work: _Work) -> Outcome:
        try:
            return self._mailer.send(work.envelope, work.lease)
        except Exception as exc:  # noqa: BLE001 - RQ's timeout or a bug: the attempt failed, the worker goes on
            self._mailer.drop()
            return Failed(f"{type(exc).__name__} while the mail was sent", maybe_accepted=True)

    def _record(self, work: _Work, outcome: Outcome) -> Verdict:
        """Write the outcome, again and again until PostgreSQL answers. An acknowledgement never becomes a failure."""
        told = False
        for pause in pauses(_LONGEST_PAUSE_SECONDS):
            try:
                with self._database.transaction() as connection:
                    return self._write(connection, work, outcome, is_repeated=told)
            except (psycopg.Error, BaseTimeoutException) as exc:
                if not told:
                    _log.warning("outcome_waits", message_id=work.claim.id, error=type(exc).__name__)
                    told = True
                if self._may_give_up():
                    return Verdict.DATABASE_AWAY
                self._pause(pause)
        raise AssertionError  # pauses() never ends

    def _pause(self, seconds: float) -> None:
        try:
            self._sleep(seconds)
        except BaseTimeoutException:
            return  # RQ's limit for the job is over; the outcome is still to be written

    def _write(self, connection: DbConnection, work: _Work, outcome: Outcome, *, is_repeated: bool) -> Verdict:
        match outcome:
            case Accepted():
                verdict = self._ack(connection, work.claim, is_repeated=is_repeated)
            case Failed():
                verdict = self._fail(connection, work.claim, outcome)
            case LeaseOver():
                verdict = self._fail(connection, work.claim, Failed("the worker stood still: the lease was over"))
            case Outage():
                delay = OUTAGE_SECONDS * self._settings.backoff_scale if outcome.reached else 0
                is_ours = statements.put_back(connection, work.claim, outcome.reason, delay_seconds=delay)
                statements.open_breaker(connection, work.claim.id, outcome.reason, self._settings.backoff_scale)
                if not work.breaker.is_open:
                    _log.error("outage", of="mail", error=outcome.reason, meaning="its messages wait until it is back")
                return Verdict.PUT_BACK if is_ours else Verdict.NOT_OURS_ANY_MORE
        self._learn_from_answer(connection, work, outcome)
        return verdict

    def _ack(self, connection: DbConnection, claim: Claim, *, is_repeated: bool) -> Verdict:
        if statements.ack(connection, claim):
            return Verdict.DONE
        if is_repeated and statements.is_done(connection, claim.id):
            return Verdict.DONE
        return Verdict.NOT_OURS_ANY_MORE

    def _fail(self, connection: DbConnection, claim: Claim, failure: Failed) -> Verdict:
        is_dead = failure.is_permanent or claim.is_last_attempt
        is_ours = statements.fail(
            connection,
            claim,
            failure.reason,
            delay_seconds=retry_delay_seconds(claim.attempt, self._settings.backoff_scale),
            is_dead=is_dead,
            maybe_accepted=failure.maybe_accepted,
        )
        if not is_ours:
            return Verdict.NOT_OURS_ANY_MORE
        return Verdict.DEAD if is_dead else Verdict.FAILED

    def _learn_from_answer(self, connection: DbConnection, work: _Work, outcome: Outcome) -> None:
        """Close the breaker that the claim found open if the mail server has answered; if it was not asked, go on."""
        if not work.breaker.is_open:
            return
        if isinstance(outcome, Accepted) or (isinstance(outcome, Failed) and not outcome.maybe_accepted):
            if statements.close_breaker(connection):
                _log.info("mail_server_back", message_id=work.claim.id)
        else:
            statements.release_probe(connection, work.claim.id)
