"""The possible outcomes of one attempt at a claimed message."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.outbox.claiming.follow_ups import FollowUp

_LONGEST_TEXT: Final = 500

TAKES_NO_MORE: Final = "the mail server takes no more for now"
"""The start of the reason of a DestinationUnavailable that may be about its message alone: a 4yz reply to RCPT TO."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The mail server accepted the mail and is responsible for it now."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A task has done everything, and nothing is to be sent.

    Attributes:
        follow_ups: the messages that are appended in the commit of the acknowledgement.

    """

    follow_ups: Sequence[FollowUp] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed because of this message. It spends an attempt.

    Attributes:
        reason: for the operator. It contains no address and no secret.
        is_permanent: no later attempt can succeed, so the message becomes a dead letter at once.
        maybe_accepted: the server may have accepted the mail anyway. Another attempt may send a second copy.
        is_unanswered: nothing was received after the last dot: a timeout, a lost connection, or an error in this
            process. Implies maybe_accepted.
        policy_code: the enhanced status code, such as "5.7.1", of a refusal by policy. Such a refusal may be about
            us and not about the recipient.
        is_about_recipient: the server says that the recipient does not exist.
        is_late: a handler ran for longer than it may.
        retry_after_seconds: the delay of the next attempt, in place of the task's backoff.

    """

    reason: str
    is_permanent: bool = False
    maybe_accepted: bool = False
    is_unanswered: bool = False
    policy_code: str | None = None
    is_about_recipient: bool = False
    is_late: bool = False
    retry_after_seconds: float | None = None

    @property
    def details(self) -> dict[str, object]:
        """What the row keeps of this attempt besides its reason."""
        details: dict[str, object] = {"maybe_accepted": self.maybe_accepted}
        if self.is_unanswered:
            details["unanswered"] = True
        if self.policy_code is not None:
            details["policy_code"] = self.policy_code
        if self.is_about_recipient:
            details["about_recipient"] = True
        return details


@dataclass(frozen=True, slots=True)
class RenderFailed:
    """The attempt failed without an answer of the destination: there was nothing to send, or an error of ours.

    It spends an attempt.

    Attributes:
        reason: for the operator. It contains no address and no secret.
        is_permanent: no later attempt can succeed, so the message becomes a dead letter at once.
        retry_after_seconds: the delay of the next attempt, in place of the task's backoff.

    """

    reason: str
    is_permanent: bool = False
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TaskUnknown:
    """This worker does not know the task. It spends no attempt, and becomes a dead letter after an hour."""

    reason: str = "unknown task: no module of OUTBOX_TASKS has it; add one, or deploy the version that has it"


@dataclass(frozen=True, slots=True)
class Discarded:
    """The work is no longer needed. The message ends as discarded, and this attempt sent nothing.

    Attributes:
        reason: for the operator. It contains no address and no secret.

    """

    reason: str

    def __post_init__(self) -> None:
        """Make the text one that PostgreSQL can store, whatever a task put into it."""
        object.__setattr__(self, "reason", storable(self.reason))


@dataclass(frozen=True, slots=True)
class Released:
    """The worker could not start the work, for a reason outside the message. It spends no attempt.

    Attributes:
        reason: for the operator. It contains no address and no secret.
        is_delayed: the cause may last for this message, so it waits and lets others go first.
        spread_seconds: it is due at a random moment of so many seconds.

    """

    reason: str
    is_delayed: bool = False
    spread_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DestinationUnavailable:
    """The destination could not be used. It spends no attempt.

    Attributes:
        reason: for the operator. It contains no address and no secret.
        after_mail_from: the server had already accepted the sender. This message may be the cause after all, so it
            waits longer and lets others be tried first.
        is_busy: the server answers, refuses for now, and may serve others meanwhile.
        retry_after_seconds: how long the destination asks for, before the next try.

    """

    reason: str
    after_mail_from: bool = False
    is_busy: bool = False
    retry_after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseOver:
    """The lease ended before the mail was complete. Nothing was sent; another process may have the message now."""


def storable(text: object) -> str:
    """Return a task's text in a form that PostgreSQL can store: printable, and not too long."""
    return "".join(char if char.isprintable() else " " for char in str(text))[:_LONGEST_TEXT]


Outcome = (
    Accepted
    | Completed
    | Failed
    | RenderFailed
    | TaskUnknown
    | Discarded
    | Released
    | DestinationUnavailable
    | LeaseOver
)
