"""The failed attempts that a message's row keeps, as they are read."""

import json
from typing import Any


def parse_failures(text: str) -> list[dict[str, Any]]:
    """Return the failed attempts; what somebody else put among them becomes an entry whose reason shows it."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):  # PostgreSQL takes longer numbers and deeper nesting than Python
        return [{"reason": "what stands here cannot be read: a number is too long or it is nested too deep"}]
    entries = entries if isinstance(entries, list) else [entries]
    return [entry if isinstance(entry, dict) else {"reason": json.dumps(entry)} for entry in entries]
