"""What a message looks like to RQ: the job's id, and the hash that RQ's own enqueue would write for it.

The layout is RQ 3.0's. A test holds it against Queue.enqueue, so that a version that changes it fails there and not in
production.
"""

import pickle
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Final

from shared.outbox.messages import ENTRY_POINT, QUEUES
from shared.outbox.publishing import Row

RESULT_TTL_SECONDS: Final = 60
"""Short but not 0: with 0 a Redis that is emptied in mid-job turns a success into a failure."""

FAILURE_TTL_SECONDS: Final = 86_400
"""How long RQ remembers a job whose process was killed. The truth about it stands in PostgreSQL."""

_STORED: Final = b"\x78\x01\x01"
"""zlib's usual window, no dictionary; the last block, which is stored as it is."""

MARKER_CHARACTERS: Final = 32
"""Of the epoch's marker, all of them hexadecimal."""

PUSH_SCRIPT: Final = f"""
-- Push a whole batch: one round trip, one atomic step, and the fields that all jobs share are not sent each time.
-- KEYS: the epoch's marker. ARGV: key prefix, present time, job timeout, a new marker, RPUSH or LPUSH, then for each
-- queue its name, the ids of its jobs in one text, and for each job the pickled call.
-- Returns the marker, the server's description with its run id ('' where INFO is refused), and the queues that took
-- nothing since their keys hold something else than a list.
local prefix, now, timeout, push = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local model = prefix .. ':outbox:model'
local marker, refused = redis.pcall('GET', KEYS[1]), {{}}
if type(marker) ~= 'string' or #marker ~= {MARKER_CHARACTERS} or string.find(marker, '%X') then
  marker = ARGV[4]  -- there was none, or somebody else wrote something there
  redis.call('SET', KEYS[1], marker)
end
local at = 6
while ARGV[at] do
  local queue, call = ARGV[at], at + 2
  local list, ids = prefix .. ':queue:' .. queue, {{}}
  local length = redis.pcall('LLEN', list)
  local is_list = type(length) == 'number' or not string.find(length.err, 'WRONGTYPE', 1, true)
  -- A hash is copied in half the time in which its fields are set: Redis looks for each among those that it has.
  redis.call('DEL', model)
  redis.call('HSET', model,
    'data', '', 'description', '', 'origin', queue, 'status', 'queued', 'created_at', now, 'enqueued_at', now,
    'timeout', timeout, 'result_ttl', '{RESULT_TTL_SECONDS}', 'failure_ttl', '{FAILURE_TTL_SECONDS}',
    'success_callback_name', '', 'failure_callback_name', '', 'stopped_callback_name', '',
    'started_at', '', 'ended_at', '', 'last_heartbeat', '', 'worker_name', '', 'group_id', '')
  for id, message in string.gmatch(ARGV[at + 1], '(outbox%-(%-?%d+)%-g%d+)') do
    if is_list then
      local job = prefix .. ':job:' .. id
      redis.call('COPY', model, job, 'REPLACE')
      -- RQ's default description is the call with its arguments, and it is logged.
      redis.call('HSET', job, 'data', ARGV[call], 'description', 'outbox message ' .. message)
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
  redis.pcall('SADD', prefix .. ':queues', list)  -- for RQ's lists of queues; no job depends on it
  at = call
end
redis.call('DEL', model)
local server = redis.pcall('INFO', 'server')
return {{marker, type(server) == 'string' and server or '', refused}}
"""


def job_id(row: Row) -> str:
    """Name the job of this life of the message: pushed twice it is the same job, after a return another one.

    PUSH_SCRIPT finds the message's id in it.
    """
    return f"outbox-{row.id}-g{row.generation}"


def push_arguments(rows: Sequence[Row]) -> Iterator[str | bytes]:
    """Give the part of PUSH_SCRIPT's ARGV that names the jobs. Only the message's id travels."""
    for queue in QUEUES:
        of_queue = [row for row in rows if row.queue == queue]
        if of_queue:
            yield queue
            yield " ".join([job_id(row) for row in of_queue])
            for row in of_queue:
                yield _stored_call(row.id)


def timestamp() -> str:
    """Give the present time as RQ writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _stored_call(message_id: int) -> bytes:
    """Write the call as RQ does: pickled, in zlib's format.

    Nothing is gained by compressing fifty bytes. They stand in one stored block (RFC 1951, section 3.2.4) between the
    format's header and checksum (RFC 1950, section 2.2); the module zlib takes twice the time for it.
    """
    call = _pickled_call(message_id)
    return _stored_block_head(len(call)) + call + zlib.adler32(call).to_bytes(4, "big")


@cache
def _stored_block_head(size: int) -> bytes:
    """Write what stands before so many stored bytes; ids differ in length by a few bytes, so there are few of them."""
    return _STORED + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")


def _pickled_call(message_id: int) -> bytes:
    """Pickle the call: the ids that pickle writes in four bytes are put into a call that was pickled before.

    Pickling each would be a tenth of what the relay computes for a message.
    """
    if message_id in _FOUR_BYTES:
        return _BEFORE_ID + message_id.to_bytes(4, "little") + _BEHIND_ID
    return _pickle(message_id)


def _pickle(message_id: int) -> bytes:
    return pickle.dumps((ENTRY_POINT, None, (message_id,), {}), protocol=pickle.HIGHEST_PROTOCOL)


_FOUR_BYTES: Final = range(2**16, 2**31)
_BEFORE_ID, _BEHIND_ID = _pickle(_FOUR_BYTES[-1]).split(_FOUR_BYTES[-1].to_bytes(4, "little"))
