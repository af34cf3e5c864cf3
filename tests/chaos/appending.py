"""Append the messages of the run's own tasks in SQL, as other services do, while everything fails."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

import psycopg
from psycopg.types.json import Jsonb

from tests.chaos.tasks import CallDown, CallSlow, CountJob

_Task = type[CountJob] | type[CallDown] | type[CallSlow]

_APPEND: Final = """
    WITH appended AS (
        INSERT INTO outbox (task, queue, destination, payload)
        VALUES (%(task)s, 'default', %(destination)s, %(payload)s)
        RETURNING id
    )
    INSERT INTO chaos_jobs (job, task, message_id) SELECT %(job)s, %(task)s, id FROM appended
"""
_SHARES: Final[Mapping[_Task, float]] = {CountJob: 0.4, CallDown: 0.06, CallSlow: 0.02}
"""How many messages of each there are for a signup. Each of those that are slow takes a place for nine seconds."""


_PAUSE_SECONDS: Final = 0.1
"""Between two tries to connect."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the services listen, or do not."""

    slow: int
    down: int


class Appender:
    """A thread for each task. What a job's number stands for is committed with its message, or not at all."""

    def __init__(self, database_url: str, ports: Ports, *, rate: float) -> None:
        self._database_url = database_url
        self._ports = ports
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._last_job = 0
        self._threads = [
            threading.Thread(target=self._run, args=(task, 1 / (share * rate)), name=task.task, daemon=True)
            for task, share in _SHARES.items()
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Append no more."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, task: _Task, pause: float) -> None:
        turns = count(time.monotonic() + pause, pause)
        while not self._over.is_set():
            with suppress(psycopg.OperationalError), psycopg.connect(self._database_url) as connection:
                self._append_on(connection, task, turns)
            self._over.wait(_PAUSE_SECONDS)

    def _append_on(
        self,
        connection: psycopg.Connection[tuple[object, ...]],
        task: _Task,
        turns: Iterator[float],
    ) -> None:
        while not self._over.is_set():
            job = self._next_job()
            # Every second row leaves its destination to the claim.
            values = {"task": task.task, "destination": task.destination if job % 2 else None, "job": job}
            connection.execute(_APPEND, {**values, "payload": Jsonb(self._payload(task, job))})
            connection.commit()
            # What an outage held up is appended as soon as it is over.
            self._over.wait(max(0.0, next(turns) - time.monotonic()))

    def _payload(self, task: _Task, job: int) -> dict[str, int]:
        ports = {CallSlow.task: self._ports.slow, CallDown.task: self._ports.down}
        return {"job": job} | ({"port": ports[task.task]} if task.task in ports else {})

    def _next_job(self) -> int:
        with self._lock:
            self._last_job += 1
            return self._last_job
