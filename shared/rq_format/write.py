"""What a message looks like to RQ: the job's id, and the hash that RQ's own enqueue would write for it.

The layout is RQ 3.0's. A test holds it against Queue.enqueue, so that a version that changes it fails there and not in
production.
"""

import pickle
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from shared.outbox.messages import ENTRY_POINT, QUEUES, JobRef
from shared.rq_format.ids import LUA_PATTERN, job_id
from shared.rq_format.keys import MARKER_CHARACTERS, Keys

RESULT_TTL_SECONDS: Final = 60
"""Short but not 0: with 0 a Redis that is emptied in mid-job turns a success into a failure."""

FAILURE_TTL_SECONDS: Final = 86_400
"""How long RQ remembers a job whose process was killed. The truth about it stands in PostgreSQL."""

PUSH_SCRIPT: Final = f"""
-- Push a whole batch: one round trip, one atomic step, and the fields that all jobs share are not sent each time.
-- KEYS: the epoch's marker, the set of queues. ARGV: what a job's key begins with, present time, job timeout, a new
-- marker, RPUSH or LPUSH, then for each queue its name, its key, the ids of its jobs in one text, and for each job the
-- pickled call.
-- Returns the marker, the server's description with its run id ('' where INFO is refused), and the queues that took
-- nothing since their keys hold something else than a list.
local job_prefix, now, timeout, push = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local marker, refused = redis.pcall('GET', KEYS[1]), {{}}
if type(marker) ~= 'string' or #marker ~= {MARKER_CHARACTERS} or string.find(marker, '%X') then
  marker = ARGV[4]  -- there was none, or somebody else wrote something there
  redis.call('SET', KEYS[1], marker)
end
local at = 6
while ARGV[at] do
  local queue, list, call, ids = ARGV[at], ARGV[at + 1], at + 3, {{}}
  local length = redis.pcall('LLEN', list)
  local is_list = type(length) == 'number' or not string.find(length.err, 'WRONGTYPE', 1, true)
  for id, message in string.gmatch(ARGV[at + 2], '{LUA_PATTERN}') do
    if is_list then
      local job = job_prefix .. id
      redis.call('DEL', job)  -- a job that is pushed again keeps nothing of its former run, not even its expiry
      redis.call('HSET', job,
        'data', ARGV[call], 'origin', queue, 'status', 'queued', 'created_at', now, 'enqueued_at', now,
        -- RQ's default description is the call with its arguments, and it is logged.
        'description', 'outbox message ' .. message,
        'timeout', timeout, 'result_ttl', '{RESULT_TTL_SECONDS}', 'failure_ttl', '{FAILURE_TTL_SECONDS}')
      ids[#ids + 1] = id
    end
    call = call + 1
    if #ids == 1000 then  -- a command takes only so many arguments from Lua's stack
      redis.call(push, list, unpack(ids))
      ids = {{}}
    end
  end
  if #ids > 0 then redis.call(push, list, unpack(ids)) end
  if not is_list then refused[#refused + 1] = queue end
  redis.pcall('SADD', KEYS[2], list)  -- for RQ's lists of queues; no job depends on it
  at = call
end
local server = redis.pcall('INFO', 'server')
return {{marker, type(server) == 'string' and server or '', refused}}
"""


def push_arguments(rows: Sequence[JobRef], keys: Keys) -> Iterator[str | bytes]:
    """Give the part of PUSH_SCRIPT's ARGV that names the jobs. Only the message's id travels."""
    for queue in QUEUES:
        of_queue = [row for row in rows if row.queue == queue]
        if of_queue:
            yield queue
            yield keys.queue(queue)
            yield " ".join([job_id(row.id, row.generation) for row in of_queue])
            for row in of_queue:
                yield _pickled_call(row.id)


def timestamp() -> str:
    """Give the present time as RQ writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _pickled_call(message_id: int) -> bytes:
    """Return the call as RQ's own serializer writes it. RQ also reads it uncompressed."""
    return pickle.dumps((ENTRY_POINT, None, (message_id,), {}), protocol=pickle.HIGHEST_PROTOCOL)
