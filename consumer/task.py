"""The public interface of a task: its name, the schema of its payload, and the function that prepares its mails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import EXCLUDE, Schema, fields, validate

from consumer.model.mail import Mail
from consumer.model.outcomes import Discarded
from shared.database.connections import DbConnection
from shared.errors import OutboxError
from shared.settings.consumer import ConsumerSettings

__all__ = [
    "Discarded",
    "Mail",
    "NoSuchUserError",
    "Payload",
    "Preparation",
    "Prepared",
    "Task",
    "UndeliverableError",
    "UserPayload",
]

Payload = dict[str, Any]

_LONGEST_REASON: Final = 500


class UndeliverableError(OutboxError):
    """No attempt can succeed: the message becomes a dead letter at once, with this text as its reason."""

    @property
    def reason(self) -> str:
        """The text in a form that PostgreSQL can store, whatever a task put into it."""
        return "".join(char if char.isprintable() else " " for char in str(self))[:_LONGEST_REASON]


class NoSuchUserError(UndeliverableError):
    """The user in the payload does not exist, or was deleted."""

    def __init__(self) -> None:
        """Set the reason."""
        super().__init__("the user in the payload does not exist or was deleted")


class UserPayload(Schema):
    """`{"username": …}`, the payload of every task about one user. Unknown keys are ignored."""

    class Meta:
        """Marshmallow's options."""

        unknown = EXCLUDE

    username = fields.String(required=True, validate=validate.Length(min=1))


Prepared = Mapping[int, Mail | Discarded | UndeliverableError]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a task may use while it prepares mails: one transaction for all messages, and the settings."""

    connection: DbConnection
    settings: ConsumerSettings


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of message and the work for it.

    Attributes:
        name: the task's name in the outbox.
        payload: the schema that payloads are validated with. It is created once, since creating it costs more than
            using it.
        prepare: returns the mails of several claimed messages, given their payloads by message id. It runs again at
            every attempt and never sends anything. In place of a mail it returns an UndeliverableError where no attempt
            can succeed, and Discarded where the mail is no longer needed. When it raises, its writes are rolled back
            and it is called again for each message alone. What it raises then fails that message's attempt;
            UndeliverableError makes it a dead letter.

    """

    name: str
    payload: Schema
    prepare: Callable[[Preparation, Mapping[int, Payload]], Prepared]
