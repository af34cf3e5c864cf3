"""The messages that travel through the outbox: what is asked for, never how it is done.

A message is a task's name, a queue and a JSON payload. The consumer's registry says what is done with it.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar, Final

CRITICAL: Final = "critical"
DEFAULT: Final = "default"
QUEUES: Final = (CRITICAL, DEFAULT)
"""Most urgent first."""

ENTRY_POINT: Final = "consumer.jobs.run_message"
"""The one function that a job on Redis names. The relay writes it as text and imports nothing."""

LONGEST_ANSWER_SECONDS: Final = 600.0
"""How long a mail server's answer to a mail is waited for at the most (RFC 5321, 4.5.3.2.6), under a renewed lease.
RQ's limit for a job leaves room for it."""

DOORBELL_CHANNEL: Final = "outbox_doorbell"
"""The NOTIFY channel that wakes a sleeping relay. A lost ring costs one poll interval, nothing else."""


@dataclass(frozen=True, slots=True)
class Message:
    """What every message has: the name of its task and the queue that it waits in."""

    task: ClassVar[str]
    queue: ClassVar[str]

    def payload(self) -> dict[str, object]:
        """Give the JSON object that the consumer receives."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SendVerifyEmail(Message):
    """Mail the user a link that verifies the address."""

    task: ClassVar[str] = "task:send_verify_email"
    queue: ClassVar[str] = CRITICAL

    username: str


@dataclass(frozen=True, slots=True)
class SendWelcomeEmail(Message):
    """Greet a user whose address is verified."""

    task: ClassVar[str] = "task:send_welcome_email"
    queue: ClassVar[str] = DEFAULT

    username: str
