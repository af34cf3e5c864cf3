"""What a task is: a name, the shape of its payload, and how its mail is prepared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, validate
from psycopg import Connection

from shared.errors import OutboxError
from shared.settings import ConsumerSettings

DbConnection = Connection[tuple[Any, ...]]


class UndeliverableError(OutboxError):
    """No attempt can end better: the message becomes a dead letter at once."""


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
        recipient_name: the person's name.
        subject: one line.
        template: the name of the two templates, without `.html` and `.txt`.
        values: what the templates show beside `name`.

    """

    recipient: str
    recipient_name: str
    subject: str
    template: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a task may use while it prepares: the claim's own transaction, the message's id and the settings."""

    connection: DbConnection
    message_id: int
    settings: ConsumerSettings


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of message and what is done with it.

    Attributes:
        name: the task's name in the outbox.
        payload: the marshmallow schema that a payload has to pass.
        prepare: makes the mail. It runs inside the claim's transaction, so that what it writes and the claim stand or
            fall together, and it may run again at every attempt. It raises UndeliverableError when no attempt can
            succeed. It never sends anything.

    """

    name: str
    payload: type[Schema]
    prepare: Callable[[Preparation, dict[str, Any]], Mail]
