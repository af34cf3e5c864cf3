"""What a task is: a name, the shape of its payload, and how its mails are prepared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import EXCLUDE, Schema, fields, validate

from consumer.model.outcomes import Discarded
from shared.database.connections import DbConnection
from shared.errors import OutboxError
from shared.settings.processes import ConsumerSettings

Payload = dict[str, Any]


_LONGEST_REASON: Final = 500


class UndeliverableError(OutboxError):
    """No attempt can end better: the message becomes a dead letter at once. The text is the reason that is kept."""

    @property
    def reason(self) -> str:
        """Give the text as PostgreSQL can keep it, whatever a task put into it."""
        return "".join(char if char.isprintable() else " " for char in str(self))[:_LONGEST_REASON]


class NoSuchUserError(UndeliverableError):
    """The user that the payload names does not exist (any more)."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the user that the payload names does not exist (any more)")


class UserPayload(Schema):
    """`{"username": …}`, the payload of every task that is about one user. What a later version adds is ignored."""

    class Meta:
        """Marshmallow's options."""

        unknown = EXCLUDE

    username = fields.String(required=True, validate=validate.Length(min=1))


@dataclass(frozen=True, slots=True)
class Mail:
    """What one person is to read.

    Attributes:
        recipient: the address.
        recipient_name: the person's name, in the To header and as `name` in the templates. Empty where the address is
            not verified: the person who signed up could otherwise send a text of their own to a stranger.
        subject: one line.
        template: the name of the two templates, without `.html` and `.txt`.
        values: what the templates show beside `name`.

    """

    recipient: str
    recipient_name: str
    subject: str
    template: str
    values: Mapping[str, object]


Prepared = Mapping[int, Mail | Discarded | UndeliverableError]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a task may use while it prepares: one transaction for all the messages, and the settings."""

    connection: DbConnection
    settings: ConsumerSettings


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of message and what is done with it.

    Attributes:
        name: the task's name in the outbox.
        payload: the schema that a payload has to pass; made once, since making one costs more than using it.
        prepare: makes the mails of some messages, given their payloads by message id. The messages are claimed by then,
            and it may run again at every attempt. It gives an UndeliverableError in place of the mail that no attempt
            can make, and Discarded in place of one that nobody needs any more. It never sends anything. When it raises,
            what it wrote is rolled back and it is called once more for each message alone; what it raises then is that
            message's failure, UndeliverableError for good.

    """

    name: str
    payload: Schema
    prepare: Callable[[Preparation, Mapping[int, Payload]], Prepared]
