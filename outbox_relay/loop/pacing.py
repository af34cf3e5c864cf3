"""How a relay divides its time: intervals, grace periods, shares of work that is not publishing, pauses."""

from dataclasses import dataclass
from time import monotonic
from typing import Final

from shared.doubling_pause import DoublingPause
from shared.outbox.reaping import POSTMASTER_GRACE_SECONDS

REAPING_SHARE: Final = 0.2
"""With a million jobs in Redis one step of a sweep takes seconds, and the leases of the first rows are over again
before its last step. Without a limit nothing would be published until the workers have caught up."""

PRUNING_SHARE: Final = 0.2
"""Without pauses, pruning writes so much that PostgreSQL makes a checkpoint every half a minute instead of every five
minutes, and other commits wait for the disk."""

EXPIRY_SHARE: Final = 0.05
"""The deletion of accounts is not urgent."""

POLLING_SHARE: Final = 0.05
"""For polls that usually find nothing. They take long only while somebody holds an old snapshot."""


ACCOUNTS_AT_ONCE: Final = 100

POP_TO_CLAIM_SECONDS: Final = 5.0
"""The longest time between a job's pop and its claim, unless its worker died or froze."""

RECONNECT_GRACE_SECONDS: Final = 15.0
"""After an outage of PostgreSQL the consumers have this time to acknowledge what they finished during it."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """The times between a relay's steps, and the size of one step.

    Attributes:
        reap_seconds: between two sweeps.
        beat_seconds: between two heartbeats.
        prune_seconds, expire_seconds: between two steps of a deletion that has nothing more to delete.
        longest_outage_pause_seconds: between two passes while a server is unavailable; the first pauses are shorter.
        accounts_at_once: the largest number of accounts that one step of the expiry checks.
        pop_to_claim_seconds: once a sweep has found a job missing, how long it has to stay missing until its message
            is pending again. The first search is due when the publish lease (RelaySettings) is over.
        postmaster_grace_seconds, reconnect_grace_seconds: after a start of PostgreSQL, and after an outage that the
            relay has seen, no claim is reaped for this long.

    """

    reap_seconds: float = 1.0
    beat_seconds: float = 5.0
    prune_seconds: float = 60.0
    expire_seconds: float = 60.0
    longest_outage_pause_seconds: float = 5.0
    accounts_at_once: int = ACCOUNTS_AT_ONCE
    pop_to_claim_seconds: float = POP_TO_CLAIM_SECONDS
    postmaster_grace_seconds: float = POSTMASTER_GRACE_SECONDS
    reconnect_grace_seconds: float = RECONNECT_GRACE_SECONDS


_FIRST_GATHERING_SECONDS: Final = 0.002
_LONGEST_GATHERING_SECONDS: Final = 0.064


def interval(began: float, share: float) -> float:
    """Return the seconds between the start of a step that has just ended and the start of the next one.

    Args:
        began: when the step started, by time.monotonic().
        share: how much of the time such steps may take, above 0 and up to 1.

    """
    return (monotonic() - began) / share


def gathering_pause() -> DoublingPause:
    """Return the pause after a pass that published, in which further messages gather.

    Without it each pass would find the few messages that came during the previous one: a busy loop of small batches on
    the cores that signups need. A message that comes to a sleeping relay is published without this pause.
    """
    return DoublingPause(_FIRST_GATHERING_SECONDS, _LONGEST_GATHERING_SECONDS)
