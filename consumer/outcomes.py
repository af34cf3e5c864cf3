"""What can come of a message: the answers of a mail server, sorted by what they say about the message."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accepted:
    """The mail server took the mail: it answers for it now."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed, and that says something about this message.

    Attributes:
        reason: for the operator; it holds no address and no secret.
        is_permanent: no later attempt can end better: a dead letter at once.
        maybe_accepted: the mail may have been taken all the same; another attempt may be a second copy.

    """

    reason: str
    is_permanent: bool = False
    maybe_accepted: bool = False


@dataclass(frozen=True, slots=True)
class Outage:
    """The mail server could not be used. It says nothing about the message, whose attempt is given back.

    Attributes:
        reason: for the operator; it holds no address and no secret.
        reached: the server had taken the sender already when it stopped. Such an outage may have to do with this
            message after all, so it waits longer and lets others be tried first.

    """

    reason: str
    reached: bool = False


@dataclass(frozen=True, slots=True)
class LeaseOver:
    """The claim's time was over before the mail was complete: nothing was sent, somebody else may hold it now."""


Outcome = Accepted | Failed | Outage | LeaseOver
