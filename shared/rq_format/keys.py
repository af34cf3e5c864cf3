"""The names of the Redis keys that relay, workers and doctor share."""

import re
from dataclasses import dataclass
from typing import Final

MARKER_CHARACTERS: Final = 32

_MARKER: Final = re.compile(rb"[0-9A-Fa-f]{%d}" % MARKER_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under one prefix. All are RQ's, except the epoch's marker and the job template.

    Attributes:
        prefix: the value of RQ_KEY_PREFIX.

    """

    prefix: str

    @property
    def epoch_marker(self) -> str:
        """The key of a random text that the relay sets if there is none. So an emptied Redis gets another one."""
        return f"{self.prefix}:outbox:epoch"

    @property
    def job_template(self) -> str:
        """The key of the hash that the push script copies, and deletes at its end."""
        return f"{self.prefix}:outbox:model"

    @property
    def queues(self) -> str:
        """The key of the set of all queues' keys."""
        return f"{self.prefix}:queues"

    def queue(self, name: str) -> str:
        """Return the key of a queue: the list of the ids of its waiting jobs."""
        return f"{self.prefix}:queue:{name}"

    def job(self, job_id: str) -> str:
        """Return the key of a job's hash."""
        return f"{self.prefix}:job:{job_id}"

    def results(self, job_id: str) -> str:
        """Return the key of the stream of a job's results."""
        return f"{self.prefix}:results:{job_id}"

    def failed(self, queue: str) -> str:
        """Return the key of the sorted set of a queue's failed jobs."""
        return f"{self.prefix}:failed:{queue}"

    @property
    def workers(self) -> str:
        """The key of the set of all workers' keys."""
        return f"{self.prefix}:workers"

    def workers_of(self, queue: str) -> str:
        """Return the key of the set of the keys of a queue's workers."""
        return f"{self.prefix}:workers:{queue}"

    def worker(self, name: str) -> str:
        """Return the key of a worker's hash."""
        return f"{self.prefix}:worker:{name}"

    @property
    def suspended(self) -> str:
        """The key that exists while `rq suspend` is in effect."""
        return f"{self.prefix}:suspended"


def is_marker(value: bytes | None) -> bool:
    """Return whether the value is an epoch's marker as a push writes it."""
    return value is not None and _MARKER.fullmatch(value) is not None
