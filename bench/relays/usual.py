"""The relays that people write around RQ: row by row, and in batches."""

from typing import Any

import psycopg
from redis import Redis
from rq import Queue

from bench.relays.batches import BATCH, MoveBatch, Task
from shared.outbox.messages import QUEUES

_FUNCTION = "tasks.run"

_TAKE = """
    SELECT id, task, payload, queue
      FROM outbox
     WHERE status = 'pending' AND due_at <= now()
     ORDER BY queue, coalesce(destination, ''), due_at, id
     LIMIT %s
"""
_MARK = """
    UPDATE outbox
       SET status = 'published', broker_epoch = '-', published_at = clock_timestamp(),
           lease_until = clock_timestamp() + interval '30 seconds'
     WHERE id = ANY(%s)
"""


class UsualRelay:
    """A connection to each server, and RQ's queues."""

    def __init__(self, task: Task) -> None:
        """Connect."""
        self._connection: psycopg.Connection[Any] = psycopg.connect(task.database_url, autocommit=True)
        redis = Redis.from_url(task.redis_url)
        self._queues = {name: Queue(name, connection=redis) for name in QUEUES}

    def row_by_row(self) -> int:
        """Enqueue a row, mark it, commit; then the next one. A crash repeats one job at the most."""
        rows = self._connection.execute(_TAKE, [100]).fetchall()
        for row_id, task, payload, queue in rows:
            self._queues[queue].enqueue(_FUNCTION, task, payload, job_id=str(row_id))
            self._connection.execute(_MARK, [[row_id]])
        return len(rows)

    def one_by_one(self) -> int:
        """Enqueue the rows of a batch one by one, and mark them all in one UPDATE."""
        with self._connection.transaction():
            rows = self._connection.execute(f"{_TAKE} FOR UPDATE SKIP LOCKED", [BATCH]).fetchall()
            for row_id, task, payload, queue in rows:
                self._queues[queue].enqueue(_FUNCTION, task, payload, job_id=str(row_id))
            self._connection.execute(_MARK, [[row[0] for row in rows]])
        return len(rows)

    def many(self) -> int:
        """Enqueue the whole batch with RQ's enqueue_many, and mark it in one UPDATE."""
        with self._connection.transaction():
            rows = self._connection.execute(f"{_TAKE} FOR UPDATE SKIP LOCKED", [BATCH]).fetchall()
            for name, queue in self._queues.items():
                jobs = [
                    Queue.prepare_data(_FUNCTION, (task, payload), job_id=str(row_id))
                    for row_id, task, payload, of_queue in rows
                    if of_queue == name
                ]
                if jobs:
                    queue.enqueue_many(jobs)
            self._connection.execute(_MARK, [[row[0] for row in rows]])
        return len(rows)


def prepare_row_by_row(task: Task) -> MoveBatch:
    """Build the relay that commits each row."""
    return UsualRelay(task).row_by_row


def prepare_one_by_one(task: Task) -> MoveBatch:
    """Build the relay that calls enqueue for each row."""
    return UsualRelay(task).one_by_one


def prepare_many(task: Task) -> MoveBatch:
    """Build the relay that calls enqueue_many for each batch."""
    return UsualRelay(task).many
