"""The disposition of a message in this worker, and its log line."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from time import monotonic

import structlog

from consumer.model.lease import Lease
from consumer.model.message import AttemptResult, ClaimedMessage, PreparedMessage, Work

_log = structlog.get_logger(__name__)


class Disposition(Enum):
    """The ways in which a message leaves a worker."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD = "dead"
    DISCARDED = "discarded"
    RELEASED = "released"
    """It is pending again and spent no attempt."""
    NOT_CLAIMED = "not_claimed"
    """Another worker has it, it is finished, it is not due, or it does not exist: there is nothing to do."""
    CLAIM_LOST = "claim_lost"
    """The lease ended and a relay reaped the claim before the outcome was written. Or the outcome was written, the
    answer to its COMMIT was lost, and the lease ended before PostgreSQL could be asked."""
    UNACKNOWLEDGED = "unacknowledged"
    """PostgreSQL did not answer. A relay reaps the claim when its lease is over."""


@dataclass(frozen=True, slots=True)
class RecordedResult:
    """A result that needs no more work in this process: it is written, or given up."""

    result: AttemptResult
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step made of claimed messages.

    Attributes:
        work: what is left to be carried out.
        results: outcomes that are to be recorded.
        recorded: outcomes that PostgreSQL has already.

    """

    work: list[Work] = field(default_factory=list)
    results: list[AttemptResult] = field(default_factory=list)
    recorded: list[RecordedResult] = field(default_factory=list)

    @property
    def all_results(self) -> "list[AttemptResult | RecordedResult]":
        """The outcomes, whether they are recorded or not."""
        return [*self.results, *self.recorded]

    def with_leases(self, leases: Mapping[int, Lease]) -> "StepResult":
        """Return the same with the present leases of these messages."""
        return StepResult(
            [
                replace(each, message=each.message.with_lease(leases[each.message.claim.id]))
                if isinstance(each, PreparedMessage)
                else each
                for each in self.work
            ],
            [replace(each, message=each.message.with_lease(leases[each.message.claim.id])) for each in self.results],
            self.recorded,
        )

    def add(self, other: "StepResult") -> None:
        """Add what another step has made."""
        self.work.extend(other.work)
        self.results.extend(other.results)
        self.recorded.extend(other.recorded)


def log_result(
    message_id: int, disposition: Disposition, message: ClaimedMessage | None = None, reason: str | None = None
) -> None:
    """Log one message's disposition and end its span. A reason contains no address and no secret."""
    write = _log.warning if disposition is Disposition.DEAD else _log.info
    write(
        f"message.{disposition.value}",
        message_id=message_id,
        task=None if message is None else message.claim.task,
        attempt=None if message is None else message.claim.attempt,
        reason=reason,
        seconds=None if message is None else round(monotonic() - message.lease.started_at, 3),
    )
    if message is not None:
        message.span.note("outbox.disposition", disposition.value)
        if disposition in {Disposition.FAILED, Disposition.DEAD, Disposition.UNACKNOWLEDGED}:
            message.span.failed()
        message.span.end()
