"""Redis as an OutboxWorker sees it: RQ's lists and hashes, two round trips for any number of jobs."""

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

from consumer.threaded.state import LOOK_SECONDS
from redis_client.addresses import client_cause
from shared.rq_format.ids import message_id_of_job
from shared.rq_format.keys import Keys
from shared.rq_format.read import LARGEST_DATA_BYTES, PoppedJob, message_id_of_call

_POP_SCRIPT: Final = """
-- Take up to ARGV[1] jobs, all of the first list before any of the second. LPOP's own count needs Redis 6.2.
-- Returns lists and jobs in turns, and the keys that hold something else than a list.
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

_REFUSE_SCRIPT: Final = """
-- Do with a job what RQ does with one that failed, so that its owner finds it: `rq info`, `rq requeue`.
-- KEYS: the job's hash, the registry of its queue's failed jobs, the job's results, the worker's hash.
-- ARGV: job id, end of the registry's entry, present time, worker's name, the reason as RQ stores it, time to live.
-- Returns 1 if the job is there.
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

_REFUSAL: Final = (
    "An OutboxWorker runs the outbox's messages alone: let another worker take this job from a queue of its own."
)

_JOB_ID_OF_RQ: Final = re.compile(rb"[A-Za-z0-9_-]{1,200}")
"""RQ gives no job another one, and one that is no text would keep it from listing the others."""

_OF_ANOTHER_TYPE: Final = ("WRONGTYPE", "hash value is not an integer", "increment or decrement would overflow")

_log = structlog.get_logger(__name__)


class WorkerBroker:
    """Pops jobs and deletes them. Raises RedisError where Redis cannot be used."""

    def __init__(self, client: Redis, keys: Keys, queues: Sequence[str], worker: str) -> None:
        """Keep the client, the names of the queues, the most urgent first, and that of this worker."""
        self._client = client
        self._keys = keys
        self._queues = {keys.queue(name): name for name in queues}
        self._queue_keys = list(self._queues)
        self._worker = worker
        self._worker_key = keys.worker(worker)
        self._pop_script = client.register_script(_POP_SCRIPT)
        self._refuse_script = client.register_script(_REFUSE_SCRIPT)
        self._blocked: frozenset[str] = frozenset()
        """The queues' keys that hold something else than a list."""

    def pop(self, most: int, *, last_queue_first: bool = False) -> list[PoppedJob]:
        """Take up to so many jobs that wait, in the order of the queues or against it."""
        keys = self._queue_keys[::-1] if last_queue_first else self._queue_keys
        reply: Any = self._pop_script(keys=keys, args=[most])
        popped, blocked = reply
        if len(popped) < most * 2:  # else it has not come to the last queue
            self._note_blocked(frozenset(key.decode() for key in blocked))
        return [PoppedJob(key.decode(), job_id) for key, job_id in zip(popped[::2], popped[1::2], strict=True)]

    def wait_for_one(self) -> list[PoppedJob]:
        """Take the next job that arrives, or none after a second."""
        keys = [key for key in self._queue_keys if key not in self._blocked]
        if not keys:
            time.sleep(LOOK_SECONDS)
            return []
        popped: Any = self._client.blpop(keys, LOOK_SECONDS)
        return [] if popped is None else [PoppedJob(popped[0].decode(), popped[1])]

    def is_of_first_queue(self, job: PoppedJob) -> bool:
        """Tell whether the job came from the queue that goes before the others."""
        return job.queue_key == self._queue_keys[0]

    def message_id(self, job: PoppedJob) -> int | None:
        """Give the message that the job names, or None for a job that is not ours.

        Redis is asked about other jobs than the relay's alone: somebody may have enqueued a message through RQ itself.
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
            return None  # the key holds something else than a job
        return None if data is None else message_id_of_call(data)

    def finish(self, succeeded: Sequence[PoppedJob], failed: Sequence[PoppedJob]) -> None:
        """Delete the jobs and count them where `rq info` looks. Redis away: the reaper's next push has another id.

        Raises:
            RedisError: Redis is away, or refuses: a missing right, a full disk, a replica.

        """
        with self._client.pipeline(transaction=False) as pipe:
            pipe.unlink(*(self._key(job) for job in (*succeeded, *failed)))
            for name, jobs in (("successful_job_count", succeeded), ("failed_job_count", failed)):
                if jobs:
                    pipe.hincrby(self._worker_key, name, len(jobs))
            # Where somebody keeps something else at the counters' key nothing is counted; the jobs are deleted.
            refused = [reply for reply in pipe.execute(raise_on_error=False) if isinstance(reply, RedisError)]
        for error in refused:
            if not any(words in str(error) for words in _OF_ANOTHER_TYPE):
                # A replica keeps its clients. Only an error that it raises itself makes redis-py leave the server.
                self._client.connection_pool.disconnect(inuse_connections=False)
                raise error

    def refuse(self, job: PoppedJob) -> bool:
        """Put a job that is not ours among the failed ones of its queue; false when RQ has no such job."""
        if not _JOB_ID_OF_RQ.fullmatch(job.job_id):
            return False
        job_id, present = job.job_id.decode(), datetime.now(UTC)
        reason = b64encode(zlib.compress(_REFUSAL.encode()))
        kept: Any = self._refuse_script(
            keys=[
                self._key(job),
                self._keys.failed(self._queues[job.queue_key]),
                self._keys.results(job_id),
                self._worker_key,
            ],
            args=[
                job_id,
                int(present.timestamp()) + DEFAULT_FAILURE_TTL,
                present.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                self._worker,
                reason,
                DEFAULT_FAILURE_TTL,
            ],
        )
        return bool(kept)

    def _note_blocked(self, keys: frozenset[str]) -> None:
        """Say once of each key that it holds no list, and once that it does again."""
        for key in keys - self._blocked:
            _log.error(
                "queue.blocked",
                key=key,
                meaning="the key holds no list: the other queue goes on",
                fix="rename the key, or delete it if nobody misses what it holds",
            )
        for key in self._blocked - keys:
            _log.info("queue.unblocked", key=key)
        self._blocked = keys

    def cause(self, error: BaseException) -> str:
        """Return where this Redis is and why it cannot be used; it holds no secret."""
        return client_cause(error, self._client)

    def _key(self, job: PoppedJob) -> bytes:
        return self._keys.job("").encode() + job.job_id  # somebody else's id may be no text
