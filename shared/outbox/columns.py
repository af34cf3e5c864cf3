"""The columns of a message's row: their names, states and limits, and how unusual values are read and written.

Any program may write a row, with values up to the limits that the table's constraints allow. Every statement that adds
to a value, or that reads it into Python, uses the expressions of this module.
"""

import json
from typing import Any, Final

LIVE_STATUSES: Final = ("pending", "published", "running", "dead")
FINISHED_STATUSES: Final = ("done", "discarded")

LARGEST_ID: Final = 2**63 - 1

LARGEST_PAYLOAD_BYTES: Final = 1024 * 1024
"""Of a payload as PostgreSQL stores it, which may be compressed."""

LARGEST_NUMBER: Final = 999_999_999
"""Of generation, attempt and max_retries. The number of attempts stays at this limit. Generations start again at 0
after it, because only the difference from the previous one matters."""

DEFAULT_MAX_RETRIES: Final = 10
"""Of a message that names none, where its task is not known."""

MAX_RETRIES: Final = f"coalesce(max_retries, {DEFAULT_MAX_RETRIES})"
"""The SQL that reads max_retries."""

LONGEST_REASON: Final = 2000

FAILURES_KEPT: Final = 20
LARGEST_FAILURES_KEPT_BYTES: Final = 256 * 1024
"""Our own failures are much smaller. If another program has written more than this, it is dropped with the next
failure."""

NEXT_GENERATION: Final = f"mod(generation + 1, {LARGEST_NUMBER + 1})"

FAILURES_SO_FAR: Final = f"""
    CASE WHEN pg_column_size(failures || '[]') > {LARGEST_FAILURES_KEPT_BYTES} THEN '[]'
         WHEN jsonb_array_length(failures) >= {FAILURES_KEPT} THEN failures - 0
         ELSE failures END
"""
"""The failures that are kept in addition to the next one. The concatenation has the uncompressed size, which is the
size that the constraint checks."""

_COLUMNS: Final = (
    "id",
    "task",
    "payload",
    "queue",
    "status",
    "due_at",
    "generation",
    "attempt",
    "max_retries",
    "broker_epoch",
    "last_error",
    "failures",
    "traceparent",
    "created_at",
    "published_at",
    "claimed_at",
    "finished_at",
    "uid",
    "destination",
    "dedup_key",
)


def insert_finished(source: str, *, status: str, last_error: str) -> str:
    """Return the INSERT that moves the rows of a CTE into outbox_finished.

    Args:
        source: the CTE's name; it has the columns of outbox.
        status: an SQL expression for the new status.
        last_error: an SQL expression for the reason.

    """
    values = {"status": status, "last_error": last_error, "finished_at": "clock_timestamp()"}
    selected = ", ".join(values.get(column, column) for column in _COLUMNS)
    return f"INSERT INTO outbox_finished ({', '.join(_COLUMNS)}) SELECT {selected} FROM {source}"  # noqa: S608 - our own


def moment(column: str) -> str:
    """Return the SQL that reads a time, and NULL where Python has no value for it.

    PostgreSQL has infinite times, and times before Christ and after the year 9999. Constraints keep most of them out of
    live rows; finished rows may be older than those constraints. The days at both ends allow for the session's time
    zone.
    """
    return f"CASE WHEN {column} BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00' THEN {column} END"


def distance(later: str, earlier: str) -> str:
    """Return the SQL for the seconds between two times, and NULL where one of them is infinite."""
    return (
        f"CASE WHEN isfinite({later}) AND isfinite({earlier}) THEN extract(epoch FROM {later} - {earlier})::float8 END"
    )


def parse_failures(text: str) -> list[dict[str, Any]]:
    """Return a row's failed attempts. An entry that another program wrote becomes one whose reason shows it."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):  # PostgreSQL takes longer numbers and deeper nesting than Python
        return [{"reason": "this value cannot be read: a number is too long, or it is nested too deeply"}]
    entries = entries if isinstance(entries, list) else [entries]
    return [entry if isinstance(entry, dict) else {"reason": json.dumps(entry)} for entry in entries]
