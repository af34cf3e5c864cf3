"""Recording: writing what came of each message, until PostgreSQL has it."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from consumer.model.message import Ended
from consumer.model.outcomes import Accepted, Discarded, Failed, LeaseOver, NotBegun, NotMade, Outage
from consumer.model.results import Verdict
from consumer.stages import busy_server, policy_outage
from consumer.stages.backoff import OUTAGE_SECONDS, retry_delay_seconds
from consumer.stages.database import LOCKED, UNREACHABLE, Database
from consumer.stages.policy_outage import RefusalEffect, RefusedMessage
from shared.database.connections import DbConnection
from shared.outbox import claims as statements
from shared.outbox import policy_refusals
from shared.outbox.claims import Claim

_log = structlog.get_logger(__name__)

_STOOD_STILL: Final = Failed("the worker stood still: the lease was over")

_LOCK_SECONDS: Final = 1
"""Nobody of ours holds the row of a running message for as long as that."""

_AGAIN_LOCK_SECONDS: Final = 0.05
"""For an outcome that PostgreSQL did not take before, alone or among others: others wait behind it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A message that is out of our hands."""

    ended: Ended
    verdict: Verdict


class Recorder:
    """Writes outcomes, many in one transaction. An acknowledgement never becomes a failure."""

    def __init__(self, database: Database, backoff_scale: float) -> None:
        """Keep what every outcome needs."""
        self._database = database
        self._backoff_scale = backoff_scale
        self._unheard: dict[Claim, Ended] = {}
        self._refused: dict[Claim, Ended] = {}
        self._doubtful: set[Claim] = set()
        """Those whose commit may have arrived, although nobody said so."""
        self._news: list[Callable[[], object]] = []
        """What is to be logged when the transaction in hand is committed."""
        self._serves_others: bool | None = None
        """Whether the mail server serves others, where the transaction in hand has asked."""
        self._written: set[Claim] = set()
        """Of the failed and released ones, those that the transaction in hand has changed."""

    @property
    def is_waiting(self) -> bool:
        """Tell whether outcomes are still to be written: call retry, after a pause."""
        return bool(self._unheard or self._refused)

    def record(self, ended: Sequence[Ended]) -> list[Settled]:
        """Try once to write these outcomes, with those that PostgreSQL did not hear, and give those that are settled.

        What it refuses for another reason than being away is tried alone from then on, and holds up nothing else.
        """
        batch = [*self._unheard.values(), *ended]
        self._unheard.clear()
        if len(batch) > 1:
            try:
                return self._record_together(batch, _LOCK_SECONDS)
            except Exception as exc:  # noqa: BLE001 - whoever records must not end: all outcomes would go with it
                self._doubt(batch, exc)
                if _is_away(exc):
                    self._unheard = {each.held.claim: each for each in batch}
                    return []
        lock_seconds = _LOCK_SECONDS if len(batch) == 1 else _AGAIN_LOCK_SECONDS
        return [settled for each in batch for settled in self._record_alone(each, lock_seconds)]

    def retry(self) -> list[Settled]:
        """Try again what waits, and give those that are settled."""
        refused = [*self._refused.values()]
        self._refused.clear()
        return [
            *self.record([]),
            *(settled for each in refused for settled in self._record_alone(each, _AGAIN_LOCK_SECONDS)),
        ]

    def give_up(self) -> list[Settled]:
        """Let go of what could not be written: a relay takes those messages back when their leases are over."""
        waiting = [*self._unheard.values(), *self._refused.values()]
        self._unheard.clear()
        self._refused.clear()
        return [Settled(each, Verdict.DATABASE_AWAY) for each in waiting]

    def _record_alone(self, ended: Ended, lock_seconds: float) -> list[Settled]:
        try:
            return self._record_together([ended], lock_seconds)
        except Exception as exc:  # noqa: BLE001 - as above
            self._doubt([ended], exc)
            if _is_away(exc):
                self._unheard[ended.held.claim] = ended
            elif isinstance(exc, LOCKED) or not ended.held.lease.is_over():
                self._refused[ended.held.claim] = ended
            else:
                # Refused for good, and no longer ours: it would only take a place for ever.
                self._doubtful.discard(ended.held.claim)
                return [Settled(ended, Verdict.DATABASE_AWAY)]
        return []

    def _doubt(self, batch: Sequence[Ended], exc: Exception) -> None:
        for each in batch:
            if each.held.claim not in self._doubtful:
                _log.warning("result.not_written", message_id=each.held.claim.id, error=self._database.cause(exc))
                self._doubtful.add(each.held.claim)

    def _record_together(self, batch: Sequence[Ended], lock_seconds: float) -> list[Settled]:
        self._news.clear()
        self._written.clear()
        self._serves_others = None
        with self._database.transaction(lock_seconds=lock_seconds) as connection:
            verdicts = self._write(connection, batch)
        for tell in self._news:
            tell()
        self._doubtful.difference_update(verdicts)
        return [Settled(each, verdicts[each.held.claim]) for each in batch]

    def _write(self, connection: DbConnection, batch: Sequence[Ended]) -> dict[Claim, Verdict]:
        verdicts = self._ack(connection, [each for each in batch if isinstance(each.outcome, Accepted)])
        verdicts |= self._put_back(connection, [each for each in batch if isinstance(each.outcome, NotBegun)])
        verdicts |= self._discard(connection, batch)
        refused = {each.held.claim: refusal for each in batch if (refusal := _refusal(each)) is not None}
        effects = self._effects(connection, refused)
        for each in batch:
            match each.outcome:
                case Failed() as failure if (effect := effects.get(each.held.claim.id)) and not effect.spends:
                    verdicts[each.held.claim] = self._release(connection, each, failure, effect)
                case Failed() as failure:
                    verdicts[each.held.claim] = self._fail(connection, each, failure)
                case NotMade(reason, is_permanent):
                    failure = Failed(reason, is_permanent=is_permanent)
                    verdicts[each.held.claim] = self._fail(connection, each, failure)
                case LeaseOver():
                    verdicts[each.held.claim] = self._fail(connection, each, _STOOD_STILL)
                case Outage() as outage:
                    verdicts[each.held.claim] = self._note_outage(connection, each, outage)
                case Accepted() | Discarded() | NotBegun():
                    pass
        for each in batch:
            self._learn_of_the_mail_server(connection, each)
        given_back = self._note_refusals(connection, refused, effects)
        return verdicts | {claim: Verdict.PUT_BACK for claim in refused if claim.id in given_back}

    @staticmethod
    def _effects(connection: DbConnection, refused: Mapping[Claim, RefusedMessage]) -> dict[int, RefusalEffect]:
        if not refused:
            return {}
        return policy_outage.read_effects(connection, [claim.id for claim in refused])

    def _note_refusals(
        self, connection: DbConnection, refused: Mapping[Claim, RefusedMessage], effects: Mapping[int, RefusalEffect]
    ) -> AbstractSet[int]:
        """Note those that this transaction has written: what an earlier one wrote it noted as well.

        Give the messages that got attempts back.
        """
        written = [refusal for claim, refusal in refused.items() if claim in self._written]
        if not written:
            return set()
        noted = policy_outage.note(connection, written, effects, self._backoff_scale)
        if noted.declared is not None:
            self._news.append(partial(policy_outage.log_outage, noted.declared))
        return noted.given_back

    def _ack(self, connection: DbConnection, accepted: Sequence[Ended]) -> dict[Claim, Verdict]:
        if not accepted:
            return {}
        claims = [each.held.claim for each in accepted]
        done = statements.ack(connection, claims)
        doubtful = [claim.id for claim in claims if claim in self._doubtful and claim.id not in done]
        if doubtful:
            done |= statements.done_among(connection, doubtful)
        return {claim: Verdict.DONE if claim.id in done else Verdict.NOT_OURS_ANY_MORE for claim in claims}

    def _put_back(self, connection: DbConnection, not_begun: Sequence[Ended]) -> dict[Claim, Verdict]:
        verdicts: dict[Claim, Verdict] = {}
        for is_its_own in (False, True):
            waiting = [each for each in not_begun if _waits(each) is is_its_own]
            if waiting:
                delay = OUTAGE_SECONDS * self._backoff_scale if is_its_own else 0
                ours = statements.release(connection, [each.held.claim for each in waiting], None, delay_seconds=delay)
                for each in waiting:
                    claim = each.held.claim
                    verdicts[claim] = self._verdict(each, Verdict.PUT_BACK, is_written=claim.id in ours)
        return verdicts

    def _discard(self, connection: DbConnection, batch: Sequence[Ended]) -> dict[Claim, Verdict]:
        unwanted = [(each, each.outcome.reason) for each in batch if isinstance(each.outcome, Discarded)]
        if not unwanted:
            return {}
        reasons = {each.held.claim: reason for each, reason in unwanted}
        ours = statements.discard_claims(connection, reasons)
        return {
            each.held.claim: self._verdict(each, Verdict.DISCARDED, is_written=each.held.claim.id in ours)
            for each, _ in unwanted
        }

    def _release(self, connection: DbConnection, ended: Ended, failure: Failed, effect: RefusalEffect) -> Verdict:
        """Give the attempt back that met an outage by policy."""
        claim = ended.held.claim
        first_code = failure.policy_code if effect.first_at is None else None
        is_written = policy_refusals.release_refused(connection, claim, failure.reason, first_code)
        if is_written:
            self._written.add(claim)
        return self._verdict(ended, Verdict.PUT_BACK, is_written=is_written)

    def _note_outage(self, connection: DbConnection, ended: Ended, outage: Outage) -> Verdict:
        claim = ended.held.claim
        delay = OUTAGE_SECONDS * self._backoff_scale if outage.reached else 0
        if outage.is_busy and not ended.breaker.is_open:
            if outage.reached and busy_server.refuses_this_one_alone(connection, claim, delay):
                return self._fail(connection, ended, Failed(outage.reason))
            if not outage.reached and self._others_are_served(connection):
                wait = busy_server.WAIT_SECONDS * self._backoff_scale
                ours = statements.release(connection, [claim], outage.reason, delay_seconds=wait)
                return self._verdict(ended, Verdict.PUT_BACK, is_written=claim.id in ours)
        ours = statements.release(connection, [claim], outage.reason, delay_seconds=delay)
        statements.open_breaker(connection, claim.id, outage.reason, self._backoff_scale)
        if not ended.breaker.is_open and not self._news:
            meaning = "its messages wait until it is back"
            self._news.append(partial(_log.error, "mail_server.unavailable", error=outage.reason, meaning=meaning))
        return self._verdict(ended, Verdict.PUT_BACK, is_written=claim.id in ours)

    def _others_are_served(self, connection: DbConnection) -> bool:
        if self._serves_others is None:
            self._serves_others = busy_server.serves_others(connection)
        return self._serves_others

    def _fail(self, connection: DbConnection, ended: Ended, failure: Failed) -> Verdict:
        claim = ended.held.claim
        is_dead = failure.is_permanent or claim.is_last_attempt
        is_written = statements.fail(
            connection,
            claim,
            failure.reason,
            details=failure.details,
            delay_seconds=retry_delay_seconds(claim.attempt, self._backoff_scale),
            is_dead=is_dead,
        )
        if is_written:
            self._written.add(claim)
        return self._verdict(ended, Verdict.DEAD if is_dead else Verdict.FAILED, is_written=is_written)

    def _verdict(self, ended: Ended, meant: Verdict, *, is_written: bool) -> Verdict:
        """Tell what became of a message that was failed, discarded or put back, perhaps by an earlier try.

        Within its lease nobody ends a claim but us. So when a repeated write does not find it, the one before did it,
        whose commit's answer was lost.
        """
        was_written = ended.held.claim in self._doubtful and not ended.held.lease.is_over()
        return meant if is_written or was_written else Verdict.NOT_OURS_ANY_MORE

    def _learn_of_the_mail_server(self, connection: DbConnection, ended: Ended) -> None:
        """Close the breaker that was open if the mail server has answered; if the probe learned nothing, go on.

        An answer that does not end an outage by policy leaves that to the next probe; such a refusal says when.
        """
        if not ended.breaker.is_open or isinstance(ended.outcome, Outage):
            return
        match ended.outcome:
            case (Accepted() | Failed(maybe_accepted=False)) as answer:
                if statements.close_breaker(connection, is_accepted=isinstance(answer, Accepted)):
                    self._news.append(partial(_log.info, "mail_server.recovered", message_id=ended.held.claim.id))
                elif ended.is_probe and ended.recipient is None:
                    statements.release_probe(connection, ended.held.claim.id, self._backoff_scale)
            case Failed() if ended.is_probe:
                # It fell silent after a mail, and may do so after each: the next one waits as after an outage.
                pause = statements.LONGEST_PROBE_PAUSE_SECONDS * self._backoff_scale
                statements.release_probe(connection, ended.held.claim.id, pause)
            case _ if ended.is_probe:
                statements.release_probe(connection, ended.held.claim.id)
            case _:
                pass


def _is_away(exc: Exception) -> bool:
    return isinstance(exc, UNREACHABLE) and not isinstance(exc, LOCKED)


def _refusal(ended: Ended) -> RefusedMessage | None:
    """Return what is to be noted if the message was refused by policy."""
    match ended.outcome:
        case Failed(policy_code=str(code), reason=reason) if ended.recipient is not None:
            return RefusedMessage(ended.held.claim.id, ended.recipient, code, reason)
        case _:
            return None


def _waits(ended: Ended) -> bool:
    return isinstance(ended.outcome, NotBegun) and ended.outcome.is_its_own
