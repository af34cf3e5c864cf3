"""The bounds of a message's row: what the table's constraints let in, and how our own steps stay inside.

A row may have been written by anybody, up to the very bound. So a step that counts on, or adds to what is there, says
here what becomes of it then.
"""

from typing import Final

LARGEST_PAYLOAD_BYTES: Final = 1024 * 1024
"""Of a payload as PostgreSQL stores it, which may be compressed."""

LARGEST_NUMBER: Final = 999_999_999
"""Of generation, attempt and max_retries. A number of attempts stays at it; after it, generations are counted from 0
on again: only that the next one is another matters."""

LONGEST_REASON: Final = 2000

FAILURES_KEPT: Final = 20
LARGEST_FAILURES_KEPT_BYTES: Final = 256 * 1024
"""Ours are smaller by far; what somebody else wrote there, and is larger, is not kept beside the next failure."""

NEXT_GENERATION: Final = f"mod(generation + 1, {LARGEST_NUMBER + 1})"

FAILURES_SO_FAR: Final = f"""
    CASE WHEN pg_column_size(failures || '[]') > {LARGEST_FAILURES_KEPT_BYTES} THEN '[]'
         WHEN jsonb_array_length(failures) >= {FAILURES_KEPT} THEN failures - 0
         ELSE failures END
"""
"""The failures that are kept beside the next one. The concatenation is of what PostgreSQL may have compressed: its size
is that of the text, as the constraint will see it."""
