"""A job as relays pushed it before jobs became plain: all fields of RQ's enqueue, the call in a zlib block."""

from typing import Final

FORMER_JOB: Final[dict[bytes, bytes]] = {
    b"data": b"\x78\x01\x01\x35\x00\xca\xff\x80\x05\x95*\x00\x00\x00\x00\x00\x00\x00(\x8c\x19consumer.jobs.run_message"
    b"\x94NJ@\xe2\x01\x00\x85\x94}\x94t\x94.\x9c\x1b\x11\xd0",
    b"description": b"outbox message 123456",
    b"origin": b"critical",
    b"status": b"queued",
    b"created_at": b"2026-11-30T15:51:42.755418Z",
    b"enqueued_at": b"2026-11-30T15:51:42.755418Z",
    b"timeout": b"660",
    b"result_ttl": b"60",
    b"failure_ttl": b"86400",
    **dict.fromkeys(
        (
            *(b"success_callback_name", b"failure_callback_name", b"stopped_callback_name"),
            *(b"started_at", b"ended_at", b"last_heartbeat", b"worker_name", b"group_id"),
        ),
        b"",
    ),
}
