"""Messages that a task appends: written in the transaction that acknowledges the task's own message."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

from shared.database.connections import DbConnection
from shared.outbox.columns import LARGEST_PAYLOAD_BYTES
from shared.outbox.messages import DESTINATION_FORM, QUEUES, Message

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of a NUL, after an even number of backslashes."""

_LONGEST_TASK_BYTES: Final = 200
_LONGEST_DELAY_SECONDS: Final = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A message to append, checked against what the table accepts.

    Attributes:
        task: its task.
        queue: its queue.
        destination: its destination; None for the task's own.
        payload: JSON text.
        delay_seconds: it is not run before so many seconds have passed.
        traceparent: the trace that it belongs to.

    """

    task: str
    queue: str
    destination: str | None
    payload: str
    delay_seconds: float = 0
    traceparent: str | None = None

    @classmethod
    def of(cls, message: Message, delay_seconds: float = 0, traceparent: str | None = None) -> "FollowUp":
        """Return the row of a message.

        Raises:
            ValueError: the table would refuse it.

        """
        name = type(message).__name__
        payload = json.dumps(message.payload(), allow_nan=False, ensure_ascii=False)
        try:
            size = len(payload.encode())
        except UnicodeEncodeError as exc:
            raise ValueError(f"{name}: PostgreSQL cannot store half of a surrogate pair") from exc
        if size > LARGEST_PAYLOAD_BYTES:
            raise ValueError(f"{name}: the payload is larger than {LARGEST_PAYLOAD_BYTES} bytes")
        if _NUL.search(payload):
            raise ValueError(f"{name}: PostgreSQL cannot store a text with a NUL character")
        if not 0 < len(message.task.encode()) <= _LONGEST_TASK_BYTES or message.queue not in QUEUES:
            raise ValueError(f"{name}: it has no usable task or queue")
        if message.destination is not None and not DESTINATION_FORM.fullmatch(message.destination):
            raise ValueError(f"{name}: it has no usable destination")
        if not isfinite(delay_seconds) or not 0 <= delay_seconds <= _LONGEST_DELAY_SECONDS:
            raise ValueError("delay_seconds has to be a number that is not negative, below a hundred years")
        return cls(message.task, message.queue, message.destination, payload, delay_seconds, traceparent)


def append_follow_ups(connection: DbConnection, follow_ups: Sequence[FollowUp]) -> None:
    """Append the messages, in the caller's transaction."""
    connection.execute(
        """
        INSERT INTO outbox (task, queue, destination, payload, traceparent, due_at)
        SELECT task, queue, destination, payload, traceparent, now() + make_interval(secs => delay)
          FROM unnest(%s::text[], %s::text[], %s::text[], %s::jsonb[], %s::text[], %s::float8[])
            AS row (task, queue, destination, payload, traceparent, delay)
        """,
        [
            [each.task for each in follow_ups],
            [each.queue for each in follow_ups],
            [each.destination for each in follow_ups],
            [each.payload for each in follow_ups],
            [each.traceparent for each in follow_ups],
            [each.delay_seconds for each in follow_ups],
        ],
    )
