"""The queue between the Fetcher and the places of an OutboxWorker."""

import threading
from collections import deque
from time import monotonic

from consumer.model.message import Work


class WorkQueue:
    """Holds work until a place is free, or until too little of its lease is left."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._is_closed = False

    def put(self, work: Work) -> None:
        """Add work for any place."""
        with self._changed:
            self._waiting.append(work)
            self._changed.notify()

    def get(self) -> Work | None:
        """Wait for work and return it; None when the queue is closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def close(self) -> None:
        """Let the places end when they have carried out what waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def take_overdue(self) -> list[Work]:
        """Remove and return what waits for so long that no place can begin it any more."""
        with self._changed:
            now = monotonic()
            overdue = [each for each in self._waiting if now >= min(one.lease.begin_until for one in each.messages)]
            for each in overdue:
                self._waiting.remove(each)
            return overdue
