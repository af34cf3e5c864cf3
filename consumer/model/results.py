"""What became of a message in this worker's hands, and the one log line that says so."""

from enum import Enum
from time import monotonic

import structlog

from consumer.model.message import Held

_log = structlog.get_logger(__name__)


class Verdict(Enum):
    """The ways in which a message leaves a worker's hands."""

    DONE = "delivered"
    FAILED = "failed"
    DEAD = "dead"
    DISCARDED = "discarded"
    """Nobody needs its mail any more."""
    PUT_BACK = "released"
    NOT_CLAIMED = "not_claimed"
    """Somebody has it, it is finished, it is not due, or there is no such message: nothing to do."""
    NOT_OURS_ANY_MORE = "claim_lost"
    """The lease was over and the message taken back before the outcome could be written. Or it was written, the answer
    to its commit was lost, and the lease was over before PostgreSQL could be asked."""
    DATABASE_AWAY = "unacknowledged"
    """PostgreSQL did not answer. What was claimed is taken back by a relay when its lease is over."""


def tell(message_id: int, verdict: Verdict, held: Held | None, reason: str | None) -> None:
    """Write the line, and end the message's span. Neither holds an address or a secret, since no reason does."""
    write = _log.warning if verdict is Verdict.DEAD else _log.info
    write(
        f"message.{verdict.value}",
        message_id=message_id,
        task=None if held is None else held.claim.task,
        attempt=None if held is None else held.claim.attempt,
        reason=reason,
        seconds=None if held is None else round(monotonic() - held.lease.started_at, 3),
    )
    if held is not None:
        held.span.note("outbox.disposition", verdict.value)
        if verdict in {Verdict.FAILED, Verdict.DEAD, Verdict.DATABASE_AWAY}:
            held.span.failed()
        held.span.end()
