"""What a claim fills in from the tasks that a worker knows: the destination and the number of retries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.outbox.columns import without_count
from shared.outbox.messages import LOCAL, UNKNOWN

DESTINATION: Final = f"""
    CASE WHEN %(tasks)s::jsonb ? task
         THEN coalesce(%(tasks)s::jsonb -> task ->> 'destination', nullif(destination, '{UNKNOWN}'), '{LOCAL}')
         ELSE coalesce(destination, '{UNKNOWN}') END
"""
"""The task's own destination, if it has one, whatever the row says: else a message could get around a pause. What a
worker has written that did not know the task is none."""

FAILURES: Final = f"""
    CASE WHEN %(tasks)s::jsonb ? task AND failures #> '{{0,counts}}' ? 'unknown_since'
         THEN {without_count("unknown_since")} ELSE failures END
"""

MAX_RETRIES_SET: Final = "coalesce(max_retries, (%(tasks)s::jsonb -> task ->> 'max_retries')::integer)"


@dataclass(frozen=True, slots=True)
class KnownTasks:
    """What the rows of a worker's tasks may leave out, as JSON: `{task: {"destination": …, "max_retries": …}}`."""

    text: str = "{}"

    @classmethod
    def of(cls, destinations: Mapping[str, str | None], max_retries: Mapping[str, int]) -> "KnownTasks":
        """Return this for tasks by their names. Without a destination of the task's, the row's counts."""
        return cls(
            json.dumps(
                {
                    name: {"destination": destination, "max_retries": max_retries[name]}
                    for name, destination in destinations.items()
                }
            )
        )


NO_TASKS: Final = KnownTasks()
