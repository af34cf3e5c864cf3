"""The lower bound of a relay: the same rows read and marked, the same bytes pushed, nothing computed in between.

What our relay sends to Redis for each batch is recorded beforehand, and sent again unchanged. So this is the cost
of PostgreSQL, Redis and two clients; what our relay takes beyond it is the cost of its own logic.
"""

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import hiredis
import psycopg
from redis import Redis
from redis.connection import Connection, ConnectionPool
from rq.defaults import RQ_KEY_PREFIX

from bench.relays.batches import BATCH, MoveBatch, Task
from outbox_relay.broker import Broker
from shared.outbox.messages import CRITICAL, JobRef

_TAKE = """
    SELECT id, generation, queue
      FROM outbox
     WHERE status = 'pending' AND queue = 'critical' AND coalesce(destination, '') = 'mail' AND due_at <= now()
     ORDER BY due_at, id
     LIMIT %s
       FOR UPDATE SKIP LOCKED
"""
_MARK = """
    UPDATE outbox
       SET status = 'published', broker_epoch = '-', published_at = clock_timestamp(),
           lease_until = clock_timestamp() + interval '30 seconds'
     WHERE id = ANY(%s)
"""
_ANSWER_BYTES = 1 << 16


class _Recorder(Connection):
    """A connection that also keeps what it sends."""

    sent: bytearray = bytearray()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, FBT001, FBT002 - as redis-py has it
        parts = [command] if isinstance(command, bytes | bytearray | memoryview) else command
        packed = b"".join(bytes(part) if not isinstance(part, str) else part.encode() for part in parts)
        self.sent += packed
        super().send_packed_command([packed], check_health)  # type: ignore[no-untyped-call]


def prepare(task: Task) -> MoveBatch:
    """Record all batches, empty Redis again, and replay them."""
    batches = list(_record(task))
    connection: psycopg.Connection[Any] = psycopg.connect(task.database_url, autocommit=True)
    address = urlsplit(task.redis_url)
    line = socket.create_connection((address.hostname or "", address.port or 0))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.sendall(f"AUTH {address.password}\r\n".encode())
    _wait_for_answer(line)
    packed = iter(batches)

    def move() -> int:
        with connection.transaction():
            rows = connection.execute(_TAKE, [BATCH]).fetchall()
            if rows:
                line.sendall(next(packed))
                _wait_for_answer(line)
                connection.execute(_MARK, [[row[0] for row in rows]])
        return len(rows)

    return move


def _wait_for_answer(line: socket.socket) -> None:
    reader = hiredis.Reader()
    while reader.gets() is False:
        reader.feed(line.recv(_ANSWER_BYTES))


def _record(task: Task) -> Iterator[bytes]:
    """Push the jobs of rows 1, 2, 3 … as our relay does, and return what it sends for each batch."""
    address = urlsplit(task.redis_url)
    pool = ConnectionPool(
        connection_class=_Recorder, host=address.hostname, port=address.port, password=address.password
    )
    client = Redis(connection_pool=pool)
    broker = Broker(client, RQ_KEY_PREFIX, job_timeout_seconds=60)
    broker.push([JobRef(0, 0, CRITICAL)])  # connects, and loads the script into Redis
    for first in range(1, task.rows + 1, BATCH):
        rows = [JobRef(number, 0, CRITICAL) for number in range(first, min(first + BATCH, task.rows + 1))]
        _Recorder.sent.clear()
        broker.push(rows)
        yield bytes(_Recorder.sent)
    client.flushdb()
    broker.close()
