"""Redis as an OutboxWorker sees it: RQ's lists and hashes, two round trips for any number of jobs."""

from collections.abc import Sequence
from typing import Any, Final

from redis import Redis
from redis.exceptions import ReadOnlyError, ResponseError

from consumer.control import LOOK_SECONDS
from consumer.rq_jobs import LARGEST_DATA_BYTES, PoppedJob, message_id_of_call, message_id_of_job
from redis_client.addresses import client_cause

_POP_SCRIPT: Final = """
-- Take up to ARGV[1] jobs, all of the first list before any of the second. LPOP's own count needs Redis 6.2.
local popped, wanted = {}, tonumber(ARGV[1])
for _, list in ipairs(KEYS) do
  while wanted > 0 do
    local id = redis.call('LPOP', list)
    if not id then break end
    popped[#popped + 1] = list
    popped[#popped + 1] = id
    wanted = wanted - 1
  end
end
return popped
"""


class WorkerBroker:
    """Pops jobs and deletes them. Raises RedisError where Redis cannot be used."""

    def __init__(self, client: Redis, queue_keys: list[str], job_key_prefix: str, worker_key: str) -> None:
        """Keep the client, and RQ's names for queues, jobs and this worker."""
        self._client = client
        self._queue_keys = queue_keys
        self._job_key_prefix = job_key_prefix.encode()
        self._worker_key = worker_key
        self._pop_script = client.register_script(_POP_SCRIPT)

    def pop(self, most: int, *, last_queue_first: bool = False) -> list[PoppedJob]:
        """Take up to so many jobs that wait, in the order of the queues or against it."""
        keys = self._queue_keys[::-1] if last_queue_first else self._queue_keys
        popped: Any = self._pop_script(keys=keys, args=[most])
        return [PoppedJob(key.decode(), job_id) for key, job_id in zip(popped[::2], popped[1::2], strict=True)]

    def wait_for_one(self) -> list[PoppedJob]:
        """Take the next job that arrives, or none after a second."""
        popped: Any = self._client.blpop(self._queue_keys, LOOK_SECONDS)
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
        """Delete the jobs and count them where `rq info` looks. Redis away: the reaper's next push has another id."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.unlink(*(self._key(job) for job in (*succeeded, *failed)))
            for name, jobs in (("successful_job_count", succeeded), ("failed_job_count", failed)):
                if jobs:
                    pipe.hincrby(self._worker_key, name, len(jobs))
            try:
                pipe.execute()
            except ReadOnlyError:
                raise
            except ResponseError:
                return  # the counters' key holds something else; the jobs are deleted

    def refuse(self) -> None:
        """Count a job that is not ours; its hash stays for whoever wants to know where it came from."""
        self._client.hincrby(self._worker_key, "failed_job_count", 1)

    def cause(self, error: BaseException) -> str:
        """Return where this Redis is and why it cannot be used; it holds no secret."""
        return client_cause(error, self._client)

    def _key(self, job: PoppedJob) -> bytes:
        return self._job_key_prefix + job.job_id
