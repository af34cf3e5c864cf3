"""The Redis commands of an OutboxWorker on RQ's lists and hashes: two round trips for any number of jobs."""

import re
import time
import zlib
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.defaults import DEFAULT_FAILURE_TTL

from consumer.threaded.state import POLL_SECONDS
from redis_client.addresses import client_cause
from shared.rq_format.ids import message_id_of_job
from shared.rq_format.keys import Keys
from shared.rq_format.read import LARGEST_DATA_BYTES, PoppedJob, message_id_of_call
from shared.rq_format.write import timestamp

_POP_SCRIPT: Final = """
-- Pop up to ARGV[1] jobs, all of the first list before any of the second. LPOP's own count needs Redis 6.2.
-- Returns lists and jobs in turns, and the keys that do not hold a list.
local popped, blocked, wanted = {}, {}, tonumber(ARGV[1])
for _, list in ipairs(KEYS) do
  while wanted > 0 do
    local id = redis.pcall('LPOP', list)
    if not id then break end
    if type(id) == 'table' then
      if not string.find(id.err, 'WRONGTYPE', 1, true) then return id end
      blocked[#blocked + 1] = list
      break
    end
    popped[#popped + 1] = list
    popped[#popped + 1] = id
    wanted = wanted - 1
  end
end
return {popped, blocked}
"""

_FAIL_SCRIPT: Final = """
-- Treat a job as RQ treats a failed one, so that its owner finds it with `rq info` and `rq requeue`.
-- KEYS: the job's hash, the registry of its queue's failed jobs, the job's results, the worker's hash.
-- ARGV: job id, expiry of the registry's entry, present time, worker's name, the reason as RQ stores it, time to live.
-- Returns 1 if the job exists.
redis.pcall('HINCRBY', KEYS[4], 'failed_job_count', 1)
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 0 end
local entered = redis.pcall('ZADD', KEYS[2], ARGV[2], ARGV[1])
if type(entered) == 'table' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'failed', 'ended_at', ARGV[3], 'worker_name', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.pcall('XADD', KEYS[3], 'MAXLEN', '10', '*', 'type', '2', 'worker_name', ARGV[4], 'exc_string', ARGV[5])
redis.pcall('EXPIRE', KEYS[3], ARGV[6])
return 1
"""

_REASON: Final = (
    "An OutboxWorker runs only messages of the outbox. Run this job with another worker, from another queue."
)

_JOB_ID_OF_RQ: Final = re.compile(rb"[A-Za-z0-9_-]{1,200}")
"""RQ uses no other ids, and it cannot list the jobs of a registry that contains an id that is not text."""

_OF_ANOTHER_TYPE: Final = ("WRONGTYPE", "hash value is not an integer", "increment or decrement would overflow")

_log = structlog.get_logger(__name__)


class WorkerBroker:
    """Pops jobs and deletes them. Raises RedisError if Redis cannot be used."""

    def __init__(self, client: Redis, keys: Keys, queues: Sequence[str], worker: str) -> None:
        """Serve these queues, the most urgent first, as the worker with this name."""
        self._client = client
        self._keys = keys
        self._queues = {keys.queue(name): name for name in queues}
        self._queue_keys = list(self._queues)
        self._worker = worker
        self._worker_key = keys.worker(worker)
        self._pop_script = client.register_script(_POP_SCRIPT)
        self._fail_script = client.register_script(_FAIL_SCRIPT)
        self._blocked: frozenset[str] = frozenset()
        """The queues' keys that do not hold a list."""

    def pop(self, most: int, *, last_queue_first: bool = False) -> list[PoppedJob]:
        """Pop up to this many jobs, in the order of the queues or in the reverse order."""
        keys = self._queue_keys[::-1] if last_queue_first else self._queue_keys
        reply: Any = self._pop_script(keys=keys, args=[most])
        popped, blocked = reply
        if len(popped) < most * 2:  # else it may not have reached the last queue
            self._note_blocked(frozenset(key.decode() for key in blocked))
        return [PoppedJob(key.decode(), job_id) for key, job_id in zip(popped[::2], popped[1::2], strict=True)]

    def wait_for_one(self) -> list[PoppedJob]:
        """Wait up to a second for the next job and return it, or nothing."""
        keys = [key for key in self._queue_keys if key not in self._blocked]
        if not keys:
            time.sleep(POLL_SECONDS)
            return []
        popped: Any = self._client.blpop(keys, POLL_SECONDS)
        return [] if popped is None else [PoppedJob(popped[0].decode(), popped[1])]

    def is_of_first_queue(self, job: PoppedJob) -> bool:
        """Return whether the job came from the first queue."""
        return job.queue_key == self._queue_keys[0]

    def message_id(self, job: PoppedJob) -> int | None:
        """Return the id of the message that the job names, or None for a foreign job.

        The ids of the relay's jobs contain it. Other jobs are read from Redis: RQ itself may have enqueued them.
        """
        by_id = message_id_of_job(job.job_id)
        if by_id is not None:
            return by_id
        key = self._key(job)
        try:
            if not 0 < int(self._client.hstrlen(key, "data")) <= LARGEST_DATA_BYTES:
                return None
            data: Any = self._client.hget(key, "data")
        except ResponseError:
            return None  # the key does not hold a job
        return None if data is None else message_id_of_call(data)

    def finish(self, succeeded: Sequence[PoppedJob], failed: Sequence[PoppedJob]) -> None:
        """Delete the jobs and count them for `rq info`.

        Raises:
            RedisError: Redis is unavailable, or refuses: a missing permission, a full disk, a replica.

        """
        with self._client.pipeline(transaction=False) as pipe:
            pipe.unlink(*(self._key(job) for job in (*succeeded, *failed)))
            for name, jobs in (("successful_job_count", succeeded), ("failed_job_count", failed)):
                if jobs:
                    pipe.hincrby(self._worker_key, name, len(jobs))
            # If the counters' key holds something else, nothing is counted, but the jobs are deleted.
            refused = [reply for reply in pipe.execute(raise_on_error=False) if isinstance(reply, RedisError)]
        for error in refused:
            if not any(words in str(error) for words in _OF_ANOTHER_TYPE):
                # A replica does not close its connections, and redis-py only leaves it when a command raises by itself.
                self._client.connection_pool.disconnect(inuse_connections=False)
                raise error

    def move_to_failed(self, job: PoppedJob) -> bool:
        """Move a foreign job to the failed jobs of its queue. Return False if RQ has no such job."""
        if not _JOB_ID_OF_RQ.fullmatch(job.job_id):
            return False
        job_id, present = job.job_id.decode(), datetime.now(UTC)
        reason = b64encode(zlib.compress(_REASON.encode()))
        kept: Any = self._fail_script(
            keys=[
                self._key(job),
                self._keys.failed(self._queues[job.queue_key]),
                self._keys.results(job_id),
                self._worker_key,
            ],
            args=[
                job_id,
                int(present.timestamp()) + DEFAULT_FAILURE_TTL,
                timestamp(present),
                self._worker,
                reason,
                DEFAULT_FAILURE_TTL,
            ],
        )
        return bool(kept)

    def _note_blocked(self, keys: frozenset[str]) -> None:
        """Log once that a key does not hold a list, and once that it does again."""
        for key in keys - self._blocked:
            _log.error(
                "queue.blocked",
                key=key,
                meaning="the key does not hold a list; the other queues are served",
                fix="rename the key, or delete it if nobody needs what it holds",
            )
        for key in self._blocked - keys:
            _log.info("queue.unblocked", key=key)
        self._blocked = keys

    def cause(self, error: BaseException) -> str:
        """Return where this Redis is and why it cannot be used, without a secret."""
        return client_cause(error, self._client)

    def _key(self, job: PoppedJob) -> bytes:
        return self._keys.job("").encode() + job.job_id  # another program's id may not be text
