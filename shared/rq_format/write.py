"""Writing jobs to Redis: the script that pushes a batch, and its arguments.

The format is that of RQ 3.0. A test compares it with what `Queue.enqueue` writes, so that a version of RQ that changes
it fails there and not in production.
"""

import pickle
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from shared.outbox.messages import ENTRY_POINT, QUEUES, JobRef
from shared.rq_format.ids import LUA_PATTERN, job_id
from shared.rq_format.keys import MARKER_CHARACTERS, Keys

RESULT_TTL_SECONDS: Final = 60
"""Not 0: RQ would then report a success as a failure if Redis is emptied while the job runs."""

FAILURE_TTL_SECONDS: Final = 86_400
"""How long RQ keeps a job whose process was killed. What became of the message is in PostgreSQL."""

PUSH_SCRIPT: Final = f"""
-- Push a batch in one round trip and one atomic step. The fields that all jobs share are sent once.
-- KEYS: the epoch's marker, the set of queues, a template that exists only while the script runs.
-- ARGV: the prefix of a job's key, the current time, the job timeout, a new marker, RPUSH or LPUSH; then for each
-- queue its name, its key, the ids of its jobs in one text, and the pickled call of each job.
-- Returns the marker, the reply of INFO server ('' where INFO is refused), and the queues whose keys hold another type
-- than a list: none of their jobs is pushed.
local job_prefix, now, timeout, push = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local marker, refused = redis.pcall('GET', KEYS[1]), {{}}
if type(marker) ~= 'string' or #marker ~= {MARKER_CHARACTERS} or string.find(marker, '%X') then
  marker = ARGV[4]  -- there was none, or another program has overwritten it
  redis.call('SET', KEYS[1], marker)
end
local at = 6
while ARGV[at] do
  local queue, list, call, ids = ARGV[at], ARGV[at + 1], at + 3, {{}}
  local length = redis.pcall('LLEN', list)
  local is_list = type(length) == 'number' or not string.find(length.err, 'WRONGTYPE', 1, true)
  -- To copy a hash and change two of its fields takes Redis three fifths of the instructions of setting all nine.
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[3],
    'data', '', 'description', '', 'origin', queue, 'status', 'queued', 'created_at', now, 'enqueued_at', now,
    'timeout', timeout, 'result_ttl', '{RESULT_TTL_SECONDS}', 'failure_ttl', '{FAILURE_TTL_SECONDS}')
  for id, message in string.gmatch(ARGV[at + 2], '{LUA_PATTERN}') do
    if is_list then
      local job = job_prefix .. id
      -- A job that is pushed again keeps nothing of its last run, not even its expiry.
      redis.call('COPY', KEYS[3], job, 'REPLACE')
      -- Workers log the description. RQ's default is the call with its arguments.
      redis.call('HSET', job, 'data', ARGV[call], 'description', 'outbox message ' .. message)
      ids[#ids + 1] = id
    end
    call = call + 1
    if #ids == 1000 then  -- Lua's stack limits the arguments of one command
      redis.call(push, list, unpack(ids))
      ids = {{}}
    end
  end
  if #ids > 0 then redis.call(push, list, unpack(ids)) end
  if not is_list then refused[#refused + 1] = queue end
  redis.pcall('SADD', KEYS[2], list)  -- RQ lists its queues from this set; no job depends on it
  at = call
end
redis.call('DEL', KEYS[3])
local server = redis.pcall('INFO', 'server')
return {{marker, type(server) == 'string' and server or '', refused}}
"""


def push_arguments(jobs: Sequence[JobRef], keys: Keys) -> Iterator[str | bytes]:
    """Return the part of PUSH_SCRIPT's ARGV that describes the jobs. Of a message it contains only the id."""
    for queue in QUEUES:
        of_queue = [job for job in jobs if job.queue == queue]
        if of_queue:
            yield queue
            yield keys.queue(queue)
            yield " ".join([job_id(job.id, job.generation) for job in of_queue])
            for job in of_queue:
                yield _pickled_call(job.id)


def timestamp(moment: datetime) -> str:
    """Return a time in UTC as RQ writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _pickled_call(message_id: int) -> bytes:
    """Return the call as RQ's serializer writes it. RQ compresses it, but reads it uncompressed as well."""
    return pickle.dumps((ENTRY_POINT, None, (message_id,), {}), protocol=pickle.HIGHEST_PROTOCOL)
