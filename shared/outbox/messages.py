"""The message types, the queues, and the names that the API, the relay and the consumer agree on.

A message is a task's name, a queue and a JSON payload. The consumer's registry maps the task's name to its work.
"""

import re
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID

CRITICAL: Final = "critical"
DEFAULT: Final = "default"
QUEUES: Final = (CRITICAL, DEFAULT)
"""The most urgent queue first."""

MAIL: Final = "mail"
"""The destination of mails: the mail server."""

LOCAL: Final = "local"
"""The destination of work that needs nothing but PostgreSQL and the worker. It has no breaker."""

UNKNOWN: Final = "unknown"
"""The destination of messages that name none, and whose task the worker that claims them does not know."""

DESTINATION_FORM: Final = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")
"""The form of a destination's name."""

STARVED_SECONDS: Final = 30.0
"""How long default may wait behind a critical queue that never empties. After that, relay and worker serve both."""

ENTRY_POINT: Final = "consumer.jobs.run_message"
"""The function that each job on Redis names. The relay writes the name as text and imports nothing of the consumer."""

LONGEST_ANSWER_SECONDS: Final = 600.0
"""The longest wait for a mail server's answer to a mail (RFC 5321, 4.5.3.2.6), under a renewed lease. RQ's timeout of a
job is longer than that."""

NOTIFY_CHANNEL: Final = "outbox_doorbell"
"""The NOTIFY channel that wakes a sleeping relay. A lost notification delays messages by one poll interval."""


class JobRef(NamedTuple):
    """What the relay knows of a message: enough to name its job, and nothing of its payload."""

    id: int
    generation: int
    queue: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message that the outbox can carry: its fields are the payload, its class names the task and the queue.

    Attributes:
        task: the name of the work.
        queue: CRITICAL or DEFAULT.
        destination: the outside system that the work needs; None for the one that the consumer's task names.

    """

    task: ClassVar[str]
    queue: ClassVar[str]
    destination: ClassVar[str | None] = None

    def payload(self) -> dict[str, object]:
        """Return the JSON object that the consumer receives. Times, dates, UUIDs and decimals become text."""
        return {name: _as_json(value) for name, value in asdict(self).items()}


def _as_json(value: Any) -> object:  # noqa: ANN401 - a field of any type
    match value:
        case Enum():
            return value.value
        case date():  # and datetime, which is one
            return value.isoformat()
        case UUID() | Decimal():
            return str(value)
        case dict():
            return {key: _as_json(each) for key, each in value.items()}
        case list() | tuple():
            return [_as_json(each) for each in value]
        case _:
            return value


@dataclass(frozen=True, slots=True)
class SendVerifyEmail(Message):
    """Send the user a mail with the link that verifies the address."""

    task: ClassVar[str] = "task:send_verify_email"
    queue: ClassVar[str] = CRITICAL
    destination: ClassVar[str | None] = MAIL

    username: str


@dataclass(frozen=True, slots=True)
class SendWelcomeEmail(Message):
    """Send a welcome mail to a user whose address is verified."""

    task: ClassVar[str] = "task:send_welcome_email"
    queue: ClassVar[str] = DEFAULT
    destination: ClassVar[str | None] = MAIL

    username: str


@dataclass(frozen=True, slots=True)
class DeliverWebhook(Message):
    """Send an event to one endpoint. Each row names its destination: webhook_destination(endpoint_id).

    Attributes:
        endpoint_id: the endpoint's id.
        body: the event as JSON text, which is sent as it is at each attempt.

    """

    task: ClassVar[str] = "task:deliver_webhook"
    queue: ClassVar[str] = DEFAULT

    endpoint_id: int
    body: str
