"""Redis for the relay: push jobs to RQ's lists, read the lists, and name Redis's epoch, which shows lost data."""

import math
import re
import uuid
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

import structlog
from redis import Redis
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from redis_client.addresses import client_cause
from redis_client.opening import open_redis
from redis_client.sentinels import leave_replaced_master
from shared.errors import OutboxError
from shared.outbox.messages import LONGEST_ANSWER_SECONDS, QUEUES, JobRef
from shared.rq_format.ids import job_id
from shared.rq_format.keys import Keys, is_marker
from shared.rq_format.write import PUSH_SCRIPT, push_arguments, timestamp

SOCKET_SECONDS: Final = 3.0
"""Shorter than PostgreSQL's limit on an idle transaction, so that a frozen Redis is noticed by the relay first."""

ASK_SENTINELS_SECONDS: Final = 5.0
_DELETED_AT_ONCE: Final = 1000
_RUN_ID: Final = re.compile(rb"\nrun_id:(\w+)")
"""It starts with a literal, because a pattern that starts with (?m)^ is tried at each character of the answer."""
_NO_RUN_ID: Final = "-"
_NO_MARKER: Final = "-"
_WRONG_TYPE: Final = "WRONGTYPE"

_log = structlog.get_logger(__name__)


class BrokerUnavailableError(OutboxError):
    """Redis is unreachable or refuses a command."""


def open_broker(
    redis_url: str,
    key_prefix: str,
    run_lease_seconds: float,
    *,
    ask_sentinels_seconds: float = ASK_SENTINELS_SECONDS,
) -> "Broker":
    """Return a broker whose connection never repeats a command; nothing is sent yet."""
    client = open_redis(redis_url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS)
    return Broker(
        client,
        key_prefix,
        job_timeout_seconds=math.ceil(run_lease_seconds + LONGEST_ANSWER_SECONDS),
        ask_sentinels_seconds=ask_sentinels_seconds,
    )


class Broker:
    """Pushes jobs in RQ's format, and names the epoch of Redis.

    The epoch is a marker that a push sets if there is none, together with the server's run id: an emptied Redis has
    another marker, and a restarted or failed-over one another run id. If we may not run INFO, the run id is not known,
    and jobs that a failover lost are noticed when their leases are over.
    """

    def __init__(
        self,
        client: Redis,
        key_prefix: str,
        job_timeout_seconds: int,
        ask_sentinels_seconds: float = ASK_SENTINELS_SECONDS,
    ) -> None:
        """Keep the client.

        Args:
            client: a client of RQ's Redis.
            key_prefix: the prefix of RQ's keys.
            job_timeout_seconds: after which RQ ends a job.
            ask_sentinels_seconds: between two checks of who the master is.

        """
        self._client = client
        self._keys = Keys(key_prefix)
        self._job_timeout_seconds = job_timeout_seconds
        self._push = client.register_script(PUSH_SCRIPT)
        self._ask_sentinels_seconds = ask_sentinels_seconds
        self._ask_sentinels_at = 0.0
        self._info_is_refused = False
        self.refused_queues: frozenset[str] = frozenset()
        """Queues whose key in Redis holds no list, so that the latest push left out their jobs."""

    def push(self, rows: Sequence[JobRef], *, in_front: bool = False) -> str:
        """Push the jobs of these messages in one atomic step, and return the epoch of that moment.

        The jobs of `refused_queues` are left out.

        Args:
            rows: the messages.
            in_front: push them in front of the jobs that are there already, instead of behind them.

        Raises:
            BrokerUnavailableError: the jobs may or may not be in Redis.

        """
        command = "LPUSH" if in_front else "RPUSH"
        head = (self._keys.job(""), timestamp(datetime.now(UTC)), self._job_timeout_seconds, uuid.uuid4().hex, command)
        with _translated(self._client):
            reply: Any = self._push(
                keys=[self._keys.epoch_marker, self._keys.queues, self._keys.job_template],
                args=[*head, *push_arguments(rows, self._keys)],
            )
        marker, server, refused = reply
        self.refused_queues = frozenset(queue.decode() for queue in refused)
        self._note_info(is_refused=not server)
        found = _RUN_ID.search(server)
        return _epoch(marker, found[1].decode() if found else _NO_RUN_ID)

    def epoch(self) -> str:
        """Return the present epoch of Redis. Raises BrokerUnavailableError."""
        return self._read([])[0]

    def read_lists(self, jobs: AbstractSet[bytes]) -> tuple[set[bytes], str]:
        """Return those of the jobs that are in the lists, and the epoch, as of one moment.

        Only a job in a list will be run: a hash may exist after its job was popped. The lists are read completely,
        because LPOS would search them for each single id.

        Raises:
            BrokerUnavailableError: Redis could not be read.

        """
        epoch, lists = self._read(QUEUES)
        return {job for listed in lists for job in listed if job in jobs}, epoch

    def delete_orphans(self, rows: Sequence[JobRef]) -> None:
        """Delete the hashes of jobs that are in no list any more. Raises BrokerUnavailableError."""
        keys = [self._keys.job(job_id(row.id, row.generation)) for row in rows]
        with _translated(self._client):
            for start in range(0, len(keys), _DELETED_AT_ONCE):
                self._client.unlink(*keys[start : start + _DELETED_AT_ONCE])

    def leave_replaced_master(self) -> None:
        """Close connections to a server that is no longer the master. Sentinel is asked every few seconds."""
        if monotonic() >= self._ask_sentinels_at:
            leave_replaced_master(self._client)
            self._ask_sentinels_at = monotonic() + self._ask_sentinels_seconds

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _read(self, queues: Sequence[str]) -> tuple[str, list[list[bytes]]]:
        """Return the epoch and these queues' jobs, as of one moment. Raises BrokerUnavailableError."""
        with _translated(self._client):
            if not self._info_is_refused:
                try:
                    return self._read_at_once(queues, with_info=True)
                except ReadOnlyError:
                    raise
                except ResponseError:
                    pass  # a refused command fails the whole MULTI: repeat it without INFO
            found = self._read_at_once(queues, with_info=False)
        self._note_info(is_refused=True)
        return found

    def _read_at_once(self, queues: Sequence[str], *, with_info: bool) -> tuple[str, list[list[bytes]]]:
        with self._client.pipeline(transaction=True) as pipe:
            for queue in queues:
                pipe.lrange(self.queue_key(queue), 0, -1)
            pipe.get(self._keys.epoch_marker)
            if with_info:
                pipe.info("server")
                pipe.info("replication")
            replies: list[Any] = [_unless_of_another_type(reply) for reply in pipe.execute(raise_on_error=False)]
        lists, (marker, *infos) = replies[: len(queues)], replies[len(queues) :]
        run_id = infos[0].get("run_id") if infos else None
        if infos and infos[1].get("role") == "slave":
            # redis-py keeps connections that answer: close them to connect to the new master.
            self._client.connection_pool.disconnect(inuse_connections=False)
            raise ReadOnlyError("this is a replica: its data may be older, and workers pop from the master")
        # A key of another type holds no job.
        return _epoch(marker, run_id or _NO_RUN_ID), [listed or [] for listed in lists]

    def _note_info(self, *, is_refused: bool) -> None:
        """Log once that INFO is refused. Each push tries it again."""
        if is_refused and not self._info_is_refused:
            _log.warning(
                "redis.info_refused",
                meaning="a failover is only noticed when leases are over",
                fix="let this Redis user run INFO (ACL SETUSER … +info)",
            )
        self._info_is_refused = is_refused

    def queue_key(self, queue: str) -> str:
        """Return the key of a queue's list, as RQ names it."""
        return self._keys.queue(queue)


def _epoch(marker: bytes | None, run_id: str) -> str:
    """Return the name of an epoch. A value that is no marker counts as none; the next push overwrites it."""
    return f"{marker.decode() if marker and is_marker(marker) else _NO_MARKER}/{run_id}"


def _unless_of_another_type(reply: object) -> object:
    """Return a key's value, None for a key of another type. Raises any other error."""
    if not isinstance(reply, Exception):
        return reply
    if isinstance(reply, ResponseError) and str(reply).startswith(_WRONG_TYPE):
        return None
    raise reply


@contextmanager
def _translated(client: Redis) -> Iterator[None]:
    try:
        yield
    # UnicodeError: the host in RQ_REDIS_URL is not a valid name, such as one with two dots in a row.
    except (RedisError, OSError, UnicodeError) as exc:
        raise BrokerUnavailableError(f"Redis cannot be used: {client_cause(exc, client)}") from exc
