"""What a consumer has in hand, step by step: a claimed message, one with its mail, one whose outcome is known."""

from dataclasses import dataclass, field, replace
from typing import Final

from consumer.model.lease import Lease
from consumer.model.outcomes import Outcome
from consumer.task import Mail
from shared.outbox.claims import Breaker, Claim
from shared.rq_format.read import PoppedJob
from shared.tracing.spans import NO_SPAN, OpenSpan

NO_OUTAGE: Final = Breaker(is_open=False, probe_id=None)


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient, to be told from others without an address.

    Attributes:
        address_hash: a keyed hash.
        domain_hash: the same of the domain.
        domain: itself, which is compared and not kept.

    """

    address_hash: str
    domain_hash: str
    domain: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """A message that is ours for the time of a lease.

    Attributes:
        claim: the row, and the token that proves that it is ours.
        lease: how long, by our own clock.
        job: the RQ job that named the message, where it is ours to tidy up.
        span: covers the message's time in our hands, where that is traced.

    """

    claim: Claim
    lease: Lease
    job: PoppedJob | None = None
    span: OpenSpan = NO_SPAN

    def with_lease(self, lease: Lease) -> "Held":
        """Return the same message under a renewed lease."""
        return replace(self, lease=lease)


@dataclass(frozen=True, slots=True)
class Ready:
    """A message whose mail is prepared; the breaker is what was known of the mail server then."""

    held: Held
    mail: Mail
    breaker: Breaker


@dataclass(frozen=True, slots=True)
class Ended:
    """A message whose outcome is known and not yet written.

    Attributes:
        held: the message.
        outcome: what came of it.
        breaker: what was known of the mail server when its mail was prepared.
        recipient: who was refused, if that was by policy.

    """

    held: Held
    outcome: Outcome
    breaker: Breaker = NO_OUTAGE
    recipient: Recipient | None = None

    @property
    def is_probe(self) -> bool:
        """Tell whether this message was the one that tries a mail server that was away."""
        return self.breaker.is_open and self.breaker.probe_id == self.held.claim.id

    @property
    def reason(self) -> str | None:
        """Give the outcome's reason, for the operator."""
        return getattr(self.outcome, "reason", None)
