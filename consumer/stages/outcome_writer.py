"""Writes the outcomes of several messages in one transaction: what each kind of outcome changes in PostgreSQL."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import structlog

from consumer.model.message import AttemptResult
from consumer.model.outcomes import (
    Accepted,
    Completed,
    Discarded,
    Failed,
    LeaseOver,
    Released,
    RenderFailed,
    ServerUnavailable,
    TaskUnknown,
)
from consumer.model.results import Disposition
from consumer.stages import busy_server, policy_outage
from consumer.stages.policy_outage import RefusalEffect, RefusedMessage
from consumer.task.definition import LONGEST_DELAY_SECONDS, default_delay_seconds
from consumer.task.registry import TaskRegistry
from shared.database.connections import DbConnection
from shared.outbox import breaker, follow_ups, policy_refusals
from shared.outbox import claims as statements
from shared.outbox.claims import Claim
from shared.outbox.unknown_tasks import release_unknown

_log = structlog.get_logger(__name__)

OUTAGE_SECONDS: Final = 60.0
"""How long a message waits whose cause of release may last."""

_UNKNOWN_TASK_SECONDS: Final = 3600.0
"""How long after its first release a message of an unknown task becomes a dead letter."""

_LEASE_OVER: Final = Failed("the worker froze until its lease was over, and sent nothing")

Dispositions = dict[Claim, Disposition]


class OutcomeWriter:
    """Writes one batch of outcomes.

    Attributes:
        after_commit: what to log once the transaction is committed.

    """

    def __init__(
        self, connection: DbConnection, tasks: TaskRegistry, backoff_scale: float, unconfirmed: AbstractSet[Claim]
    ) -> None:
        """Use this transaction.

        Args:
            connection: in a transaction.
            tasks: they know the delay before a retry.
            backoff_scale: multiplies every delay.
            unconfirmed: the claims whose outcome an earlier try may have committed.

        """
        self.after_commit: list[Callable[[], object]] = []
        self._connection = connection
        self._tasks = tasks
        self._backoff_scale = backoff_scale
        self._unconfirmed = unconfirmed
        self._serves_others: bool | None = None
        """Whether the mail server accepts other mails; None until it was checked."""
        self._changed: set[Claim] = set()
        """The failed and released messages whose rows this transaction has changed."""

    def write(self, batch: Sequence[AttemptResult]) -> Dispositions:
        """Write the outcomes and return each message's disposition."""
        dispositions = self._ack([each for each in batch if isinstance(each.outcome, Accepted | Completed)])
        dispositions |= self._release([each for each in batch if isinstance(each.outcome, Released)])
        dispositions |= self._discard(batch)
        dispositions |= self._release_unknown(batch)
        refused = {each.message.claim: refusal for each in batch if (refusal := _policy_refusal(each)) is not None}
        effects = self._effects(refused)
        for each in batch:
            claim = each.message.claim
            match each.outcome:
                case Failed() as failure if (effect := effects.get(claim.id)) and not effect.spends:
                    dispositions[claim] = self._release_refused(each, failure, effect)
                case Failed() as failure:
                    dispositions[claim] = self._fail(each, failure)
                case RenderFailed(reason, is_permanent, seconds):
                    failure = Failed(reason, is_permanent=is_permanent, retry_after_seconds=seconds)
                    dispositions[claim] = self._fail(each, failure)
                case LeaseOver():
                    dispositions[claim] = self._fail(each, _LEASE_OVER)
                case ServerUnavailable() as outage:
                    dispositions[claim] = self._release_after_outage(each, outage)
                case Accepted() | Completed() | Discarded() | Released() | TaskUnknown():
                    pass
        for each in batch:
            self._update_breaker(each)
        given_back = self._note_refusals(refused, effects)
        return dispositions | {claim: Disposition.RELEASED for claim in refused if claim.id in given_back}

    def _ack(self, accepted: Sequence[AttemptResult]) -> Dispositions:
        if not accepted:
            return {}
        claims = [each.message.claim for each in accepted]
        done = statements.ack(self._connection, claims)
        self._append_follow_ups([each for each in accepted if each.message.claim.id in done])
        missing = [claim.id for claim in claims if claim in self._unconfirmed and claim.id not in done]
        if missing:
            done |= statements.done_among(self._connection, missing)
        return {claim: Disposition.DELIVERED if claim.id in done else Disposition.CLAIM_LOST for claim in claims}

    def _append_follow_ups(self, acknowledged: Sequence[AttemptResult]) -> None:
        """Append what the handlers of these messages have appended: in the commit that acknowledges them."""
        outcomes = [each.outcome for each in acknowledged]
        rows = [row for outcome in outcomes if isinstance(outcome, Completed) for row in outcome.follow_ups]
        if rows:
            follow_ups.append_follow_ups(self._connection, rows)

    def _release_unknown(self, batch: Sequence[AttemptResult]) -> Dispositions:
        """Release messages whose task this worker does not know, until an hour after the first such release."""
        unknown = [each for each in batch if isinstance(each.outcome, TaskUnknown)]
        if not unknown:
            return {}
        written = release_unknown(
            self._connection,
            [each.message.claim for each in unknown],
            TaskUnknown().reason,
            delay_seconds=OUTAGE_SECONDS * self._backoff_scale,
            dead_after_seconds=_UNKNOWN_TASK_SECONDS * self._backoff_scale,
        )
        dispositions: Dispositions = {}
        for each in unknown:
            is_dead = written.get(each.message.claim.id)
            intended = Disposition.DEAD if is_dead else Disposition.RELEASED
            dispositions[each.message.claim] = self._disposition(each, intended, is_written=is_dead is not None)
        return dispositions

    def _release(self, released: Sequence[AttemptResult]) -> Dispositions:
        dispositions: Dispositions = {}
        for is_delayed in (False, True):
            group = [each for each in released if _is_delayed(each) is is_delayed]
            if group:
                delay = OUTAGE_SECONDS * self._backoff_scale if is_delayed else 0
                claims = [each.message.claim for each in group]
                ours = statements.release(self._connection, claims, None, delay_seconds=delay)
                for each in group:
                    is_written = each.message.claim.id in ours
                    dispositions[each.message.claim] = self._disposition(
                        each, Disposition.RELEASED, is_written=is_written
                    )
        return dispositions

    def _discard(self, batch: Sequence[AttemptResult]) -> Dispositions:
        discarded = [(each, each.outcome.reason) for each in batch if isinstance(each.outcome, Discarded)]
        if not discarded:
            return {}
        reasons = {each.message.claim: reason for each, reason in discarded}
        ours = statements.discard_claims(self._connection, reasons)
        return {
            each.message.claim: self._disposition(each, Disposition.DISCARDED, is_written=each.message.claim.id in ours)
            for each, _ in discarded
        }

    def _fail(self, result: AttemptResult, failure: Failed) -> Disposition:
        claim = result.message.claim
        is_dead = failure.is_permanent or claim.is_last_attempt
        is_written = statements.fail(
            self._connection,
            claim,
            failure.reason,
            details=failure.details,
            delay_seconds=self._delay_seconds(claim, failure),
            is_dead=is_dead,
        )
        if is_written:
            self._changed.add(claim)
        return self._disposition(result, Disposition.DEAD if is_dead else Disposition.FAILED, is_written=is_written)

    def _delay_seconds(self, claim: Claim, failure: Failed) -> float:
        seconds = failure.retry_after_seconds
        if seconds is None:
            seconds = default_delay_seconds(claim.attempt)
        return min(LONGEST_DELAY_SECONDS, self._backoff_scale * seconds)

    def _release_after_outage(self, result: AttemptResult, outage: ServerUnavailable) -> Disposition:
        """Release a message that found the mail server unavailable, and open the breaker unless the server is busy."""
        claim = result.message.claim
        delay = OUTAGE_SECONDS * self._backoff_scale if outage.after_mail_from else 0
        if outage.is_busy and not result.message.breaker.is_open:
            if outage.after_mail_from and busy_server.refuses_this_one_alone(self._connection, claim, delay):
                return self._fail(result, Failed(outage.reason))
            if not outage.after_mail_from and self._others_are_served():
                wait = busy_server.WAIT_SECONDS * self._backoff_scale
                ours = statements.release(self._connection, [claim], outage.reason, delay_seconds=wait)
                return self._disposition(result, Disposition.RELEASED, is_written=claim.id in ours)
        ours = statements.release(self._connection, [claim], outage.reason, delay_seconds=delay)
        breaker.open_breaker(self._connection, claim.id, outage.reason, self._backoff_scale)
        if not result.message.breaker.is_open and not self.after_commit:
            meaning = "messages wait until the mail server is available again"
            self.after_commit.append(
                partial(_log.error, "mail_server.unavailable", error=outage.reason, meaning=meaning)
            )
        return self._disposition(result, Disposition.RELEASED, is_written=claim.id in ours)

    def _others_are_served(self) -> bool:
        if self._serves_others is None:
            self._serves_others = busy_server.serves_others(self._connection)
        return self._serves_others

    def _release_refused(self, result: AttemptResult, failure: Failed, effect: RefusalEffect) -> Disposition:
        """Release a message that was refused by policy during an outage by policy."""
        claim = result.message.claim
        first_code = failure.policy_code if effect.first_at is None else None
        is_written = policy_refusals.release_refused(self._connection, claim, failure.reason, first_code)
        if is_written:
            self._changed.add(claim)
        return self._disposition(result, Disposition.RELEASED, is_written=is_written)

    def _effects(self, refused: Mapping[Claim, RefusedMessage]) -> dict[int, RefusalEffect]:
        if not refused:
            return {}
        return policy_outage.read_effects(self._connection, [claim.id for claim in refused])

    def _note_refusals(
        self, refused: Mapping[Claim, RefusedMessage], effects: Mapping[int, RefusalEffect]
    ) -> AbstractSet[int]:
        """Note the refusals that this transaction has written, and return the messages whose attempts were given back.

        A refusal that an earlier try has written was noted by that try.
        """
        written = [refusal for claim, refusal in refused.items() if claim in self._changed]
        if not written:
            return set()
        noted = policy_outage.note(self._connection, written, effects, self._backoff_scale)
        if noted.declared is not None:
            self.after_commit.append(partial(policy_outage.log_outage, noted.declared))
        return noted.given_back

    def _update_breaker(self, result: AttemptResult) -> None:
        """Close an open breaker if the mail server has answered. Release the probe if it found out nothing.

        During an outage by policy only an accepted mail closes the breaker. If the probe was refused by policy,
        _note_refusals decides when the next one is sent.
        """
        if not result.message.breaker.is_open or isinstance(result.outcome, ServerUnavailable):
            return
        message_id = result.message.claim.id
        match result.outcome:
            case (Accepted() | Completed() | Failed(maybe_accepted=False)) as answer:
                if breaker.close_breaker(self._connection, is_accepted=isinstance(answer, Accepted)):
                    self.after_commit.append(partial(_log.info, "mail_server.recovered", message_id=message_id))
                elif result.is_probe and result.recipient is None:
                    breaker.release_probe(self._connection, message_id, self._backoff_scale)
            case Failed() if result.is_probe:
                # The server got a mail and did not answer. It may do so each time, so the next probe waits longest.
                pause = breaker.LONGEST_PROBE_PAUSE_SECONDS * self._backoff_scale
                breaker.release_probe(self._connection, message_id, pause)
            case _ if result.is_probe:
                breaker.release_probe(self._connection, message_id)
            case _:
                pass

    def _disposition(self, result: AttemptResult, intended: Disposition, *, is_written: bool) -> Disposition:
        """Return the disposition of a message that was failed, discarded or released, perhaps by an earlier try.

        During its lease only this process can end its claim. So if a retried write does not find the claim, an earlier
        try has written it and the answer to its COMMIT was lost.
        """
        was_written = result.message.claim in self._unconfirmed and not result.message.lease.is_over()
        return intended if is_written or was_written else Disposition.CLAIM_LOST


def _policy_refusal(result: AttemptResult) -> RefusedMessage | None:
    """Return the refusal to note if the message was refused by policy."""
    match result.outcome:
        case Failed(policy_code=str(code), reason=reason) if result.recipient is not None:
            return RefusedMessage(result.message.claim.id, result.recipient, code, reason)
        case _:
            return None


def _is_delayed(result: AttemptResult) -> bool:
    return isinstance(result.outcome, Released) and result.outcome.is_delayed
