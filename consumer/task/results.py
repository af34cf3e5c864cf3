"""What a task returns or raises besides a mail."""

from dataclasses import dataclass
from math import isfinite

from consumer.model.mail import Mail
from consumer.model.outcomes import Discarded, storable
from consumer.model.webhook import Webhook
from shared.errors import OutboxError


class _ReasonedError(OutboxError):
    """An error whose text is shown to operators. It must contain no address and no secret."""

    @property
    def reason(self) -> str:
        """The text in a form that PostgreSQL can store, whatever a task put into it."""
        return storable(self)


class Undeliverable(_ReasonedError):  # noqa: N818 - it is returned as well as raised
    """No attempt can succeed: the message becomes a dead letter at once, with this text as its reason.

    `prepare` returns it for a message, and `prepare` and `handle` may raise it.
    """


class RetryAfter(_ReasonedError):  # noqa: N818 - named after the HTTP header
    """The attempt failed, and the next one begins after this many seconds."""

    def __init__(self, seconds: float, reason: str = "the task asked for a retry") -> None:
        if not isfinite(seconds) or seconds < 0:
            raise ValueError(f"RetryAfter needs a number of seconds that is not negative: {seconds!r}")
        super().__init__(reason)
        self.seconds = seconds


class Unavailable(_ReasonedError):  # noqa: N818 - a state, not a mistake
    """The destination cannot be used by anyone at present. It spends no attempt.

    For the destination `local`, which is never unavailable, it only delays the message.
    """

    def __init__(self, reason: str = "the destination is unavailable") -> None:
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Done:
    """Everything that the message asks for was written with `context.connection`.

    The acknowledgement is the last statement of the same transaction, so the effect happens exactly once.
    """


Prepared = Mail | Webhook | Done | Discarded | Undeliverable
"""What `prepare` returns for one message."""
