"""Writes the outcomes of several messages in one transaction: what each kind of outcome changes in PostgreSQL."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import structlog

from consumer.model.message import AttemptResult
from consumer.model.outcomes import (
    Accepted,
    Completed,
    DestinationUnavailable,
    Discarded,
    Failed,
    LeaseOver,
    Released,
    RenderFailed,
    TaskUnknown,
)
from consumer.model.results import Disposition
from consumer.stages.recording import busy_server, policy_outage
from consumer.stages.recording.destination_updates import WITHOUT_BREAKER, DestinationUpdates, Log
from consumer.stages.recording.policy_outage import RefusalEffect, RefusedMessage
from consumer.task.definition import LONGEST_DELAY_SECONDS, default_delay_seconds
from shared.database.connections import DbConnection
from shared.outbox.claiming import claims as statements
from shared.outbox.claiming import follow_ups, policy_refusals, releases
from shared.outbox.claiming.claims import Claim
from shared.outbox.claiming.unknown_tasks import release_unknown
from shared.outbox.messages import MAIL

_log = structlog.get_logger(__name__)

OUTAGE_SECONDS: Final = 60.0
"""How long a message waits whose cause of release may last."""

UNAVAILABLE_AT_MOST: Final = 100
"""How often a destination may be unavailable to a message although its breaker is closed. After that, each time fails
an attempt: it is available to others."""

_UNKNOWN_TASK_SECONDS: Final = 3600.0
"""How long after its first release a message of an unknown task becomes a dead letter."""

_LEASE_OVER: Final = Failed("the worker froze until its lease was over, and sent nothing")

Dispositions = dict[Claim, Disposition]


class OutcomeWriter:
    """Writes one batch of outcomes.

    Attributes:
        after_commit: what to log once the transaction is committed.

    """

    def __init__(self, connection: DbConnection, backoff_scale: float, unconfirmed: AbstractSet[Claim]) -> None:
        """Use this transaction.

        Args:
            connection: in a transaction.
            backoff_scale: multiplies every delay.
            unconfirmed: the claims whose outcome an earlier try may have committed.

        """
        self.after_commit: list[Callable[[], object]] = []
        self._connection = connection
        self._backoff_scale = backoff_scale
        self._unconfirmed = unconfirmed
        self._destinations = DestinationUpdates(connection, backoff_scale)
        self._given_back: AbstractSet[int] = frozenset()
        """The messages whose attempts were given back at the end of this transaction."""
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
                case DestinationUnavailable() as outage:
                    dispositions[claim] = self._release_after_outage(each, outage)
                case Accepted() | Completed() | Discarded() | Released() | TaskUnknown():
                    pass
        for each in batch:
            self._destinations.add_result(each)
        self._note_refusals(refused, effects)
        self.after_commit += self._destinations.write()
        return dispositions | {claim: Disposition.RELEASED for claim in refused if claim.id in self._given_back}

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
        groups: defaultdict[tuple[float, float], list[AttemptResult]] = defaultdict(list)
        for each in released:
            groups[_delay_seconds(each)].append(each)
        for (delay, spread), group in groups.items():
            ours = releases.release(
                self._connection,
                [each.message.claim for each in group],
                None,
                delay_seconds=delay * self._backoff_scale,
                spread_seconds=spread * self._backoff_scale,
            )
            for each in group:
                is_written = each.message.claim.id in ours
                dispositions[each.message.claim] = self._disposition(each, Disposition.RELEASED, is_written=is_written)
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
            counts={"late": claim.counts.late + 1} if failure.is_late else None,
        )
        if is_written:
            self._changed.add(claim)
        return self._disposition(result, Disposition.DEAD if is_dead else Disposition.FAILED, is_written=is_written)

    def _delay_seconds(self, claim: Claim, failure: Failed) -> float:
        seconds = failure.retry_after_seconds
        if seconds is None:
            seconds = default_delay_seconds(claim.attempt)
        return min(LONGEST_DELAY_SECONDS, self._backoff_scale * seconds)

    def _release_after_outage(self, result: AttemptResult, outage: DestinationUnavailable) -> Disposition:
        """Release a message that found its destination unavailable, and open the breaker unless it is only busy."""
        claim = result.message.claim
        if outage.is_busy and claim.destination == MAIL and not result.message.destination.is_open:
            delay = OUTAGE_SECONDS * self._backoff_scale
            if outage.after_mail_from and busy_server.refuses_this_one_alone(self._connection, claim, delay):
                return self._fail(result, Failed(outage.reason))
            if not outage.after_mail_from and self._others_are_served():
                wait = busy_server.WAIT_SECONDS * self._backoff_scale
                ours = releases.release(self._connection, [claim], outage.reason, delay_seconds=wait)
                return self._disposition(result, Disposition.RELEASED, is_written=claim.id in ours)
        times = _times_unavailable(result)
        if times is not None and times > UNAVAILABLE_AT_MOST:
            return self._fail(result, Failed(outage.reason))
        is_delayed = outage.after_mail_from or claim.destination in WITHOUT_BREAKER
        ours = releases.release(
            self._connection,
            [claim],
            outage.reason,
            delay_seconds=OUTAGE_SECONDS * self._backoff_scale if is_delayed else 0,
            counts=None if times is None else {"unavailable": times},
        )
        self._destinations.add_outage(result, outage, is_released=bool(ours))
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

    def _note_refusals(self, refused: Mapping[Claim, RefusedMessage], effects: Mapping[int, RefusalEffect]) -> None:
        """Note the refusals that this transaction has written. A refusal that an earlier try has written is noted."""
        written = [refusal for claim, refusal in refused.items() if claim in self._changed]

        def note() -> Log | None:
            noted = policy_outage.note(self._connection, written, effects, self._backoff_scale)
            self._given_back = noted.given_back
            return None if noted.declared is None else partial(policy_outage.log_outage, noted.declared)

        if written:
            self._destinations.add(MAIL, note)

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
        case Failed(policy_code=str(code), reason=reason) if (
            result.recipient is not None and result.message.claim.destination == MAIL
        ):
            return RefusedMessage(result.message.claim.id, result.recipient, code, reason)
        case _:
            return None


def _delay_seconds(result: AttemptResult) -> tuple[float, float]:
    """Return how long a released message waits, and the random time that is added."""
    match result.outcome:
        case Released(is_delayed=True, spread_seconds=spread):
            return OUTAGE_SECONDS, spread
        case Released(spread_seconds=spread):
            return 0.0, spread
        case _:
            return 0.0, 0.0


def _times_unavailable(result: AttemptResult) -> int | None:
    """Return how often the destination was unavailable to this message although its breaker was closed, with this time.

    None if that is not counted. A mail server that is unavailable to one mail alone is found in other ways.
    """
    claim, state = result.message.claim, result.message.destination
    return None if claim.destination == MAIL or state.is_open else claim.counts.unavailable + 1
