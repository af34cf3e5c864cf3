"""What can come of a message that was claimed, sorted by what it says about the message."""

from dataclasses import dataclass
from typing import Final

TAKES_NO_MORE: Final = "the mail server takes no more for now"
"""How the reason of an outage begins that may have to do with its message alone: a 4yz behind RCPT TO."""


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
        is_unanswered: nothing was heard after the last dot: silence, a lost connection, or an error of our own. Implies
            maybe_accepted.
        policy_code: the enhanced status code, such as "5.7.1", of a refusal by policy. It may be about us rather than
            about the recipient.
        is_about_recipient: the server says that there is no such recipient.

    """

    reason: str
    is_permanent: bool = False
    maybe_accepted: bool = False
    is_unanswered: bool = False
    policy_code: str | None = None
    is_about_recipient: bool = False

    @property
    def details(self) -> dict[str, object]:
        """What the row keeps of this attempt beside its reason."""
        details: dict[str, object] = {"maybe_accepted": self.maybe_accepted}
        if self.is_unanswered:
            details["unanswered"] = True
        if self.policy_code is not None:
            details["policy_code"] = self.policy_code
        if self.is_about_recipient:
            details["about_recipient"] = True
        return details


@dataclass(frozen=True, slots=True)
class NotMade:
    """There was no mail to send: the attempt failed, and the mail server was not asked.

    Attributes:
        reason: for the operator; it holds no address and no secret.
        is_permanent: no later attempt can end better: a dead letter at once.

    """

    reason: str
    is_permanent: bool = False


@dataclass(frozen=True, slots=True)
class Discarded:
    """Nobody needs the work any more: the message ends as discarded, and nothing was sent at this attempt.

    Attributes:
        reason: for the operator; it holds no address and no secret.

    """

    reason: str


@dataclass(frozen=True, slots=True)
class NotBegun:
    """Something else is out of order, and nothing was done with the message. Its attempt is given back.

    Attributes:
        reason: for the operator; it holds no address and no secret.
        is_its_own: it has to do with this message, which waits a while and lets others go first.

    """

    reason: str
    is_its_own: bool = False


@dataclass(frozen=True, slots=True)
class Outage:
    """The mail server could not be used. It says nothing about the message, whose attempt is given back.

    Attributes:
        reason: for the operator; it holds no address and no secret.
        reached: the server had taken the sender already when it stopped. Such an outage may have to do with this
            message after all, so it waits longer and lets others be tried first.
        is_busy: the server answers, refuses for now, and may serve others meanwhile.

    """

    reason: str
    reached: bool = False
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class LeaseOver:
    """The claim's time was over before the mail was complete: nothing was sent, somebody else may hold it now."""


Outcome = Accepted | Failed | NotMade | Discarded | NotBegun | Outage | LeaseOver
