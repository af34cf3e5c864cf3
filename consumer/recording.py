"""Recording: writing what came of each message, until PostgreSQL has it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
import structlog
from rq.timeouts import BaseTimeoutException

from consumer import statements
from consumer.backoff import OUTAGE_SECONDS, retry_delay_seconds
from consumer.database import UNREACHABLE, Database
from consumer.held import Ended
from consumer.outcomes import Accepted, Failed, LeaseOver, NotBegun, NotMade, Outage
from consumer.statements import Claim
from consumer.task import DbConnection
from consumer.verdicts import Verdict

_log = structlog.get_logger(__name__)

_STOOD_STILL = Failed("the worker stood still: the lease was over")


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
        self._waiting: dict[Claim, Ended] = {}
        """Outcomes that could not be written, by claim; whether their commit arrived is not known."""

    @property
    def is_waiting(self) -> bool:
        """Tell whether outcomes are still to be written: call record again, after a pause."""
        return bool(self._waiting)

    def record(self, ended: Sequence[Ended]) -> list[Settled]:
        """Try once to write these outcomes and all that wait, and give those that are written.

        What PostgreSQL refuses for another reason than being away is tried alone, so that it holds up nothing else.
        """
        batch = [*self._waiting.values(), *ended]
        try:
            return self._record_together(batch)
        except UNREACHABLE as exc:
            self._keep(batch, exc)
        except (psycopg.Error, BaseTimeoutException) as exc:
            if len(batch) > 1:
                return [settled for each in batch for settled in self._record_alone(each)]
            self._keep(batch, exc)
        return []

    def give_up(self) -> list[Settled]:
        """Let go of what could not be written: a relay takes those messages back when their leases are over."""
        settled = [Settled(each, Verdict.DATABASE_AWAY) for each in self._waiting.values()]
        self._waiting.clear()
        return settled

    def _record_alone(self, ended: Ended) -> list[Settled]:
        try:
            return self._record_together([ended])
        except (psycopg.Error, BaseTimeoutException) as exc:
            self._keep([ended], exc)
            return []

    def _keep(self, batch: Iterable[Ended], exc: Exception) -> None:
        for each in batch:
            if each.held.claim not in self._waiting:
                _log.warning("outcome_waits", message_id=each.held.claim.id, error=type(exc).__name__)
                self._waiting[each.held.claim] = each

    def _record_together(self, batch: Sequence[Ended]) -> list[Settled]:
        with self._database.transaction() as connection:
            verdicts = self._write(connection, batch)
        for each in batch:
            self._waiting.pop(each.held.claim, None)
        return [Settled(each, verdicts[each.held.claim]) for each in batch]

    def _write(self, connection: DbConnection, batch: Sequence[Ended]) -> dict[Claim, Verdict]:
        verdicts = self._ack(connection, [each for each in batch if isinstance(each.outcome, Accepted)])
        verdicts |= self._put_back(connection, [each for each in batch if isinstance(each.outcome, NotBegun)])
        for each in batch:
            match each.outcome:
                case Failed() as failure:
                    verdicts[each.held.claim] = self._fail(connection, each, failure)
                case NotMade(reason, is_permanent):
                    failure = Failed(reason, is_permanent=is_permanent)
                    verdicts[each.held.claim] = self._fail(connection, each, failure)
                case LeaseOver():
                    verdicts[each.held.claim] = self._fail(connection, each, _STOOD_STILL)
                case Outage() as outage:
                    verdicts[each.held.claim] = self._note_outage(connection, each, outage)
                case Accepted() | NotBegun():
                    pass
        for each in batch:
            self._learn_of_the_mail_server(connection, each)
        return verdicts

    def _ack(self, connection: DbConnection, accepted: Sequence[Ended]) -> dict[Claim, Verdict]:
        if not accepted:
            return {}
        claims = [each.held.claim for each in accepted]
        done = statements.ack(connection, claims)
        doubtful = [claim.id for claim in claims if claim in self._waiting and claim.id not in done]
        if doubtful:
            done |= statements.done_among(connection, doubtful)
        return {claim: Verdict.DONE if claim.id in done else Verdict.NOT_OURS_ANY_MORE for claim in claims}

    def _put_back(self, connection: DbConnection, not_begun: Sequence[Ended]) -> dict[Claim, Verdict]:
        verdicts: dict[Claim, Verdict] = {}
        for is_its_own in (False, True):
            claims = [each.held.claim for each in not_begun if _waits(each) is is_its_own]
            if claims:
                delay = OUTAGE_SECONDS * self._backoff_scale if is_its_own else 0
                ours = statements.put_back(connection, claims, None, delay_seconds=delay)
                verdicts |= {claim: _put_back_if(claim.id in ours) for claim in claims}
        return verdicts

    def _note_outage(self, connection: DbConnection, ended: Ended, outage: Outage) -> Verdict:
        claim = ended.held.claim
        delay = OUTAGE_SECONDS * self._backoff_scale if outage.reached else 0
        ours = statements.put_back(connection, [claim], outage.reason, delay_seconds=delay)
        statements.open_breaker(connection, claim.id, outage.reason, self._backoff_scale)
        if not ended.breaker.is_open:
            _log.error("outage", of="mail", error=outage.reason, meaning="its messages wait until it is back")
        return _put_back_if(claim.id in ours)

    def _fail(self, connection: DbConnection, ended: Ended, failure: Failed) -> Verdict:
        claim = ended.held.claim
        is_dead = failure.is_permanent or claim.is_last_attempt
        is_ours = statements.fail(
            connection,
            claim,
            failure.reason,
            delay_seconds=retry_delay_seconds(claim.attempt, self._backoff_scale),
            is_dead=is_dead,
            maybe_accepted=failure.maybe_accepted,
        )
        if not is_ours:
            return Verdict.NOT_OURS_ANY_MORE
        return Verdict.DEAD if is_dead else Verdict.FAILED

    @staticmethod
    def _learn_of_the_mail_server(connection: DbConnection, ended: Ended) -> None:
        """Close the breaker that was open if the mail server has answered; if the probe did not ask it, go on."""
        if not ended.breaker.is_open or isinstance(ended.outcome, Outage):
            return
        answered = isinstance(ended.outcome, Accepted) or (
            isinstance(ended.outcome, Failed) and not ended.outcome.maybe_accepted
        )
        if answered:
            if statements.close_breaker(connection):
                _log.info("mail_server_back", message_id=ended.held.claim.id)
        elif ended.is_probe:
            statements.release_probe(connection, ended.held.claim.id)


def _waits(ended: Ended) -> bool:
    return isinstance(ended.outcome, NotBegun) and ended.outcome.is_its_own


def _put_back_if(is_ours: bool) -> Verdict:  # noqa: FBT001 - read at its two calls
    return Verdict.PUT_BACK if is_ours else Verdict.NOT_OURS_ANY_MORE
