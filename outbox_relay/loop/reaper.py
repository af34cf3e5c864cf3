"""The reaper, a part of every relay: it makes messages pending again that a dead worker or Redis has lost."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import structlog

from outbox_relay.broker import Broker, BrokerUnavailableError
from outbox_relay.loop.pacing import POP_TO_CLAIM_SECONDS
from shared.database.connections import DbConnection
from shared.logs import lines_of
from shared.outbox import reaping
from shared.outbox.messages import JobRef
from shared.outbox.reaping import POSTMASTER_GRACE_SECONDS, LeaseExpired, Reaped
from shared.rq_format.ids import job_id

_log = structlog.get_logger(__name__)

EXPIRED_AT_ONCE: Final = 50_000
"""The largest number of rows in one sweep. More would delay publishing by seconds; the next sweep continues."""

_REAPED_AT_ONCE: Final = 1000
_RENEWED_AT_ONCE: Final = 5000
"""A renewal locks its rows, and a claim of one of them waits for it."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one search for lost jobs did.

    Attributes:
        renewed: rows whose job was found.
        returned_by_lease: rows that are pending again because their lease was over and their job missing.
        returned_by_epoch: rows that are pending again because they were pushed in another epoch and are missing.
        is_partial: there were more expired rows than one sweep reads, and this sweep made progress.
        expired: the number of rows whose jobs were looked up in Redis. It does not count in comparisons.

    """

    renewed: int = 0
    returned_by_lease: int = 0
    returned_by_epoch: int = 0
    is_partial: bool = False
    expired: int = field(default=0, compare=False)


class Reaper:
    """Finds messages that no process works on any more.

    It remembers which jobs were missing in an earlier sweep. This is lost with the process, and found again by the
    next one.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        publish_lease_seconds: float,
        expired_at_once: int = EXPIRED_AT_ONCE,
        pop_to_claim_seconds: float = POP_TO_CLAIM_SECONDS,
        postmaster_grace_seconds: float = POSTMASTER_GRACE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._broker = broker
        self._publish_lease_seconds = publish_lease_seconds
        self._expired_at_once = expired_at_once
        self._pop_to_claim_seconds = pop_to_claim_seconds
        self._postmaster_grace_seconds = postmaster_grace_seconds
        self._clock = clock
        self._missed_since: dict[JobRef, float] = {}

    def reap_running(self, connection: DbConnection) -> tuple[Reaped, ...]:
        """Reap claims whose lease is over, and return them. Redis is not used."""
        return tuple(reaping.reap_running(connection, _REAPED_AT_ONCE, self._postmaster_grace_seconds))

    def reap_published(self, connection: DbConnection) -> SweepResult:
        """Look up the jobs of expired published rows in Redis, and make the rows pending whose job is missing.

        The rows are read before the lists: a row published in between is not expired, and the job of an expired row was
        pushed before the lists were read.

        Raises:
            BrokerUnavailableError: Redis could not be read; nothing was changed.

        """
        epoch = self._broker.epoch()
        expired = reaping.find_lease_expired(connection, epoch, self._expired_at_once)
        if not expired:
            self._missed_since.clear()
            return SweepResult()
        listed, epoch_of_lists = self._broker.read_lists({_name(each) for each in expired})
        if epoch_of_lists != epoch:
            # The epoch changed in between: the rows were selected by the old one.
            return SweepResult(expired=len(expired))
        missing = [each for each in expired if _name(each) not in listed]
        gone = set(missing)
        renewed = self._renew(connection, [each.job for each in expired if each not in gone], epoch)
        by_lease = self._return(connection, self._missed_long_enough(missing))
        by_epoch = self._return(connection, [each.job for each in missing if not each.same_epoch])
        made_progress = bool(renewed or by_lease or by_epoch)
        self._delete_orphans([*by_lease, *by_epoch])
        is_partial = made_progress and len(expired) == self._expired_at_once
        return SweepResult(renewed, len(by_lease), len(by_epoch), is_partial, len(expired))

    def _missed_long_enough(self, missing: list[LeaseExpired]) -> list[JobRef]:
        """Return the jobs that an earlier sweep missed too, longer ago than a claim may take."""
        now = self._clock()
        jobs = [each.job for each in missing if each.same_epoch]
        self._missed_since = {job: self._missed_since.get(job, now) for job in jobs}
        return [job for job in jobs if now - self._missed_since[job] >= self._pop_to_claim_seconds]

    def _renew(self, connection: DbConnection, jobs: list[JobRef], epoch: str) -> int:
        return sum(
            reaping.renew_found(connection, chunk, epoch, self._publish_lease_seconds) for chunk in _chunks(jobs)
        )

    @staticmethod
    def _return(connection: DbConnection, jobs: list[JobRef]) -> list[JobRef]:
        returned = [job for chunk in _chunks(jobs) for job in reaping.return_missing(connection, chunk)]
        for ids in lines_of([job.id for job in returned]):
            _log.warning("messages.returned", message_ids=ids, meaning="Redis lost their jobs")
        return returned

    def _delete_orphans(self, jobs: list[JobRef]) -> None:
        """Delete the hashes that lost jobs left in Redis. If Redis is unavailable they stay there and do no harm."""
        if jobs:
            with suppress(BrokerUnavailableError):
                self._broker.delete_orphans(jobs)


def _name(expired: LeaseExpired) -> bytes:
    return job_id(expired.job.id, expired.job.generation).encode()


def _chunks(jobs: list[JobRef]) -> list[list[JobRef]]:
    return [jobs[start : start + _RENEWED_AT_ONCE] for start in range(0, len(jobs), _RENEWED_AT_ONCE)]
