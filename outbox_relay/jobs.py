"""What a message looks like to RQ: the job's id, and the hash that RQ's own enqueue would write for it.

The layout is RQ 3.0's. A test holds it against Queue.enqueue, so that a version that changes it fails there and not in
production.
"""

import pickle
import zlib
from datetime import UTC, datetime
from typing import Final

from outbox_relay.statements import Row
from shared.messages import ENTRY_POINT

Field = bytes | bytearray | memoryview | str | int | float
"""What redis-py takes as a field's name or value."""

RESULT_TTL_SECONDS: Final = 60
"""Short but not 0: with 0 a Redis that is emptied in mid-job turns a success into a failure."""

FAILURE_TTL_SECONDS: Final = 86_400
"""How long RQ remembers a job whose process was killed. The truth about it stands in PostgreSQL."""


def job_id(row: Row) -> str:
    """Name the job of this life of the message: pushed twice it is the same job, after a return another one."""
    return f"outbox-{row.id}-g{row.generation}"


def job_fields(row: Row, timeout_seconds: int, now: str) -> dict[Field, Field]:
    """Give the fields of the job's hash. Only the message's id travels."""
    call: tuple[str, None, tuple[int], dict[str, object]] = (ENTRY_POINT, None, (row.id,), {})
    return {
        "created_at": now,
        "data": zlib.compress(pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL), 1),
        "success_callback_name": "",
        "failure_callback_name": "",
        "stopped_callback_name": "",
        "started_at": "",
        "ended_at": "",
        "last_heartbeat": "",
        "worker_name": "",
        "group_id": "",
        "origin": row.queue,
        # RQ's default description is the call with its arguments, and it is logged.
        "description": f"outbox message {row.id}",
        "enqueued_at": now,
        "timeout": timeout_seconds,
        "result_ttl": RESULT_TTL_SECONDS,
        "failure_ttl": FAILURE_TTL_SECONDS,
        "status": "queued",
    }


def timestamp() -> str:
    """Give the present time as RQ writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
