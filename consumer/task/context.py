"""What a task may use while it works."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from shared.database.connections import DbConnection
from shared.outbox.messages import Message
from shared.settings.consumer import ConsumerSettings

Append = Callable[[Message, float], None]


@dataclass(frozen=True, slots=True)
class HandledMessage:
    """What a handler may know of its message.

    Attributes:
        message_id: the id of its row, for logs. It does not leave the system.
        attempt: the number of this attempt, from 1.
        uid: the message's name towards the outside.
        until: the moment (monotonic) at which the attempt is late.

    """

    message_id: int
    attempt: int
    uid: str
    until: float


class Context:
    """What a task may use while it works. The worker creates it.

    `prepare` may use `connection` and `append`; `handle` everything else.

    Attributes:
        settings: the settings of this consumer, for the tasks of this project.

    """

    def __init__(
        self,
        settings: ConsumerSettings,
        append: Append,
        *,
        connection: DbConnection | None = None,
        message: HandledMessage | None = None,
        connect: Callable[[], DbConnection] | None = None,
    ) -> None:
        self.settings = settings
        self._append = append
        self._connection = connection
        self._message = message
        self._connect = connect

    @property
    def connection(self) -> DbConnection:
        """The transaction in which `prepare` works. It is committed, or rolled back, when `prepare` has returned."""
        if self._connection is None:
            raise RuntimeError("handle has no transaction: use context.connect()")
        return self._connection

    @property
    def message_id(self) -> int:
        """The id of the message, for logs."""
        return self._handled.message_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._handled.attempt

    @property
    def idempotency_key(self) -> str:
        """A UUID that is the same at each attempt of this message: send it to services that take such a key."""
        return self._handled.uid

    @property
    def seconds_left(self) -> float:
        """For how long `handle` may still run before the attempt fails; 0 when that time is over."""
        return max(0.0, self._handled.until - monotonic())

    def connect(self) -> DbConnection:
        """Open a connection to the database of the outbox; `with` commits and closes it.

        What is not closed when `handle` returns is closed then. A transaction that is open then fails the attempt.
        """
        if self._connect is None:
            raise RuntimeError("prepare has a transaction: use context.connection")
        return self._connect()

    def append(self, message: Message, *, delay_seconds: float = 0) -> None:
        """Append a message to the outbox.

        In `prepare` it is a part of the transaction. In `handle` it is written in the commit that acknowledges the
        message, so it exists only if this attempt is the one that counts.

        Raises:
            ValueError: the outbox would refuse the message.

        """
        self._append(message, delay_seconds)

    @property
    def _handled(self) -> HandledMessage:
        if self._message is None:
            raise RuntimeError("prepare gets several messages: this belongs to handle")
        return self._message
