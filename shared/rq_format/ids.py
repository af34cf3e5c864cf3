"""The id of the RQ job of a message: writing it, and reading the message's id from it."""

import re
from typing import Final, TypeGuard

from shared.outbox.columns import LARGEST_ID

LUA_PATTERN: Final = r"(outbox%-(%-?%d+)%-g%d+)"
"""The same format as a Lua pattern. It captures the job's id and the message's id."""

_PATTERN: Final = re.compile(rb"outbox-(\d{1,19})-g\d{1,10}")


def job_id(message_id: int, generation: int) -> str:
    """Return the id of the job for this generation of the message.

    A job that is pushed twice has the same id. A message that is published again has a new generation, and its job
    another id.
    """
    return f"outbox-{message_id}-g{generation}"


def message_id_of_job(job: bytes) -> int | None:
    """Return the id of the message that a job of the relay names, or None for any other job id."""
    match = _PATTERN.fullmatch(job)
    message_id = int(match[1]) if match else None
    return message_id if is_message_id(message_id) else None


def is_message_id(value: object) -> TypeGuard[int]:
    """Return whether the value can be the id of a message."""
    return type(value) is int and 0 < value <= LARGEST_ID
