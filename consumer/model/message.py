"""The message in hand, step by step: ClaimedMessage, PreparedMail, AttemptResult."""

from dataclasses import dataclass, field, replace
from typing import Final

from consumer.model.lease import Lease
from consumer.model.mail import Mail
from consumer.model.outcomes import Outcome
from shared.outbox.breaker import Breaker
from shared.outbox.claims import Claim
from shared.rq_format.read import PoppedJob
from shared.tracing.spans import NO_SPAN, OpenSpan

CLOSED_BREAKER: Final = Breaker(is_open=False, probe_id=None)


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient that can be compared with others without storing an address.

    Attributes:
        address_hash: a keyed hash of the address.
        domain_hash: a keyed hash of the domain.
        domain: the domain itself, which is compared and never stored.

    """

    address_hash: str
    domain_hash: str
    domain: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message that is ours for the time of a lease.

    Attributes:
        claim: the row, and the token that proves that it is ours.
        lease: how long it is ours, by this process's clock.
        job: the RQ job that named the message, if this process has to delete it.
        span: covers the message's time in this process, if tracing is on.

    """

    claim: Claim
    lease: Lease
    job: PoppedJob | None = None
    span: OpenSpan = NO_SPAN

    def with_lease(self, lease: Lease) -> "ClaimedMessage":
        """Return the same message with a renewed lease."""
        return replace(self, lease=lease)


@dataclass(frozen=True, slots=True)
class PreparedMail:
    """A claimed message with its mail, ready to be sent.

    Attributes:
        message: the message.
        mail: its mail.
        breaker: the state of the mail server's breaker when the mail was prepared.

    """

    message: ClaimedMessage
    mail: Mail
    breaker: Breaker


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """A claimed message with the outcome of this attempt, ready to be recorded.

    Attributes:
        message: the message.
        outcome: the outcome.
        breaker: the state of the mail server's breaker when the mail was prepared.
        recipient: the recipient, if the server refused the mail by policy.

    """

    message: ClaimedMessage
    outcome: Outcome
    breaker: Breaker = CLOSED_BREAKER
    recipient: Recipient | None = None

    @property
    def is_probe(self) -> bool:
        """Whether this message was the one that tests an unavailable mail server."""
        return self.breaker.is_open and self.breaker.probe_id == self.message.claim.id

    @property
    def reason(self) -> str | None:
        """The outcome's reason, for the operator."""
        return getattr(self.outcome, "reason", None)
