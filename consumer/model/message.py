"""The message in hand, step by step: ClaimedMessage, then Work for a place, then AttemptResult."""

from dataclasses import dataclass, field, replace
from typing import Final

from consumer.model.lease import Lease
from consumer.model.mail import Mail
from consumer.model.outcomes import Outcome
from consumer.model.webhook import Webhook
from shared.outbox.claiming.claims import Claim
from shared.outbox.destinations.states import DestinationState
from shared.rq_format.read import PoppedJob
from shared.tracing.spans import NO_SPAN, OpenSpan

UNREAD: Final = DestinationState("")
"""Nothing is known of a destination."""


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
        destination: the state of its destination when it was read, after the claim.

    """

    claim: Claim
    lease: Lease
    job: PoppedJob | None = None
    span: OpenSpan = NO_SPAN
    destination: DestinationState = UNREAD

    def with_lease(self, lease: Lease) -> "ClaimedMessage":
        """Return the same message with a renewed lease."""
        return replace(self, lease=lease)

    def with_destination(self, destination: DestinationState) -> "ClaimedMessage":
        """Return the same message with the state of its destination."""
        return replace(self, destination=destination)

    @property
    def is_probe(self) -> bool:
        """Whether this message is the one that tests an unavailable destination."""
        return self.destination.is_open and self.destination.probe_id == self.claim.id


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """A claimed message with what is to be sent for it."""

    message: ClaimedMessage
    content: Mail | Webhook

    @property
    def messages(self) -> tuple[ClaimedMessage, ...]:
        """The message, as for the other kinds of work."""
        return (self.message,)


@dataclass(frozen=True, slots=True)
class MessagesToPrepare:
    """Claimed messages of one task, to be prepared together in a transaction and a place of their own."""

    messages: tuple[ClaimedMessage, ...]


@dataclass(frozen=True, slots=True)
class MessageToHandle:
    """A claimed message whose task has a handler."""

    message: ClaimedMessage

    @property
    def messages(self) -> tuple[ClaimedMessage, ...]:
        """The message, as for the other kinds of work."""
        return (self.message,)


Work = PreparedMessage | MessagesToPrepare | MessageToHandle
"""What a place (a sender of a worker) takes and carries out."""


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """A claimed message with the outcome of this attempt, ready to be recorded.

    Attributes:
        message: the message.
        outcome: the outcome.
        recipient: the recipient, if the server refused the mail by policy.

    """

    message: ClaimedMessage
    outcome: Outcome
    recipient: Recipient | None = None

    @property
    def reason(self) -> str | None:
        """The outcome's reason, for the operator."""
        return getattr(self.outcome, "reason", None)
