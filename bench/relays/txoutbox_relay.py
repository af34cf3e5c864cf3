"""txoutbox, tuned: large batches, no ordering, no timeout for each message, delivered rows deleted.

Its publisher gets one message at a time. It writes the job as RQ would have it, in one pipeline of prepared fields over
a kept connection, which is the least that a job of RQ takes.
"""

import asyncio
import pickle
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from txoutbox import Relay, RelayConfig
from txoutbox.adapters.postgres import PostgresStorage

from bench.relays.batches import MoveBatch, Task
from shared.outbox.messages import CRITICAL
from shared.rq_format.keys import Keys

_KEYS = Keys(RQ_KEY_PREFIX)
_CONCURRENCY = 50
_BATCH = 500


def prepare(task: Task) -> MoveBatch:
    """Create its table, move the pending messages into it, and build the relay."""
    loop = asyncio.new_event_loop()
    relay = loop.run_until_complete(_build(task))

    def move() -> int:
        published: int = loop.run_until_complete(relay.run_once()).published
        return published

    return move


async def _build(task: Task) -> Any:  # noqa: ANN401 - txoutbox may be absent where types are checked
    pool = await asyncpg.create_pool(task.database_url, min_size=2, max_size=4)
    storage = PostgresStorage(pool, table="tx_outbox", strict_ordering=False, delete_on_ack=True)
    await pool.execute("DROP TABLE IF EXISTS tx_outbox")
    await storage.create_schema()
    await pool.execute(
        "INSERT INTO tx_outbox (topic, payload) SELECT task, convert_to(payload::text, 'UTF8') FROM outbox ORDER BY id"
    )
    await pool.execute("VACUUM ANALYZE tx_outbox")
    await pool.execute("CHECKPOINT")
    redis = Redis.from_url(task.redis_url)
    await redis.ping()
    config = RelayConfig(batch_size=_BATCH, concurrency=_CONCURRENCY, publish_timeout=None, lease=timedelta(minutes=10))
    return Relay(storage, _publisher(redis), config=config)


def _publisher(redis: Redis) -> Any:  # noqa: ANN401 - the same
    async def publish(message: Any) -> None:  # noqa: ANN401 - the same
        now = datetime.now(UTC).isoformat()
        call: tuple[object, ...] = ("tasks.run", None, (message.topic, message.payload), {})
        job = f"tx-{message.id}"
        async with redis.pipeline(transaction=False) as pipe:
            pipe.hset(
                _KEYS.job(job),
                mapping={
                    "created_at": now,
                    "enqueued_at": now,
                    "data": zlib.compress(pickle.dumps(call), 1),
                    "origin": "critical",
                    "description": job,
                    "timeout": "60",
                    "status": "queued",
                },
            )
            pipe.rpush(_KEYS.queue(CRITICAL), job)
            await pipe.execute()

    return publish
