"""The columns of a message's row: their names, states and limits, and how unusual values are read and written.

Any program may write a row, with values up to the limits that the table's constraints allow. Every statement that adds
to a value, or that reads it into Python, uses the expressions of this module.
"""

import json
from dataclasses import dataclass
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

_LARGEST_COUNT: Final = 2**53
"""Of a count or a time: Python and JSON have all whole numbers below it."""

_REASON_OF_COUNTS: Final = "what is counted of this message beside its failed attempts"

NEXT_GENERATION: Final = f"mod(generation + 1, {LARGEST_NUMBER + 1})"

_HAS_COUNTS: Final = "coalesce(jsonb_typeof(failures #> '{0,counts}') = 'object', false)"

FAILURES_SO_FAR: Final = f"""
    CASE WHEN pg_column_size(failures || '[]') > {LARGEST_FAILURES_KEPT_BYTES} THEN '[]'
         WHEN jsonb_array_length(failures) >= {FAILURES_KEPT}
         THEN failures - (CASE WHEN {_HAS_COUNTS} THEN 1 ELSE 0 END)
         ELSE failures END
"""
"""The failures that are kept in addition to the next one, and the counts. The concatenation has the uncompressed size,
which is the size that the constraint checks."""

READ_COUNTS: Final = f"CASE WHEN {_HAS_COUNTS} THEN failures #>> '{{0,counts}}' END"
"""The SQL that reads a message's counts, for parse_counts."""

WITHOUT_COUNTS: Final = f"CASE WHEN {_HAS_COUNTS} THEN failures - 0 ELSE failures END"
"""The SQL of `failures` without the counts: a message that an operator retries starts again."""

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


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted of a message beside its failed attempts, since it was appended or last retried by an operator.

    It is the first element of `failures`, an object with the key `counts`, which no later failure displaces.

    Attributes:
        unavailable: how often it was released because its destination was unavailable to it, although the breaker was
            closed.
        late: how often its handler ran for longer than it may.
        unknown_since: when a worker first did not know its task, in seconds since the epoch; None if the last one knew
            it.

    """

    unavailable: int = 0
    late: int = 0
    unknown_since: float | None = None


NO_COUNTS: Final = Counts()


def parse_counts(text: str | None) -> Counts:
    """Return a message's counts. What another program may have written there counts for nothing."""
    if text is None:
        return NO_COUNTS
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = {}
    numbers = {
        key: value for key, value in stored.items() if isinstance(value, int | float) and 0 <= value < _LARGEST_COUNT
    }
    return Counts(
        unavailable=int(numbers.get("unavailable", 0)),
        late=int(numbers.get("late", 0)),
        unknown_since=numbers.get("unknown_since"),
    )


def with_counts(changes: str) -> str:
    """Return the SQL of `failures` with some of the counts set.

    Args:
        changes: an SQL expression for a JSON object whose keys are those of Counts.

    """
    return f"""
    CASE WHEN pg_column_size(failures || '[]') <= {LARGEST_FAILURES_KEPT_BYTES} AND {_HAS_COUNTS}
         THEN jsonb_set(failures, '{{0,counts}}', (failures #> '{{0,counts}}') || {changes})
         ELSE jsonb_build_object('counts', {changes}, 'reason', '{_REASON_OF_COUNTS}')
              || CASE WHEN pg_column_size(failures || '[]') <= {LARGEST_FAILURES_KEPT_BYTES} THEN failures
                      ELSE '[]' END END
    """


def without_count(key: str) -> str:
    """Return the SQL of `failures` without one of the counts."""
    return f"CASE WHEN {_HAS_COUNTS} THEN failures #- '{{0,counts,{key}}}' ELSE failures END"


def parse_failures(text: str) -> list[dict[str, Any]]:
    """Return a row's failed attempts. An entry that another program wrote becomes one whose reason shows it.

    The counts are none.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):  # PostgreSQL takes longer numbers and deeper nesting than Python
        return [{"reason": "this value cannot be read: a number is too long, or it is nested too deeply"}]
    entries = entries if isinstance(entries, list) else [entries]
    if entries and isinstance(entries[0], dict) and isinstance(entries[0].get("counts"), dict):
        entries = entries[1:]
    return [entry if isinstance(entry, dict) else {"reason": json.dumps(entry)} for entry in entries]
