"""The slots of an OutboxWorker: threads that each take one job at a time, from pop to outcome."""

import threading
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import structlog
from redis import Redis
from redis.exceptions import RedisError

from consumer.processing import Processor, Verdict
from consumer.rq_jobs import LARGEST_DATA_BYTES, message_id_of_call, message_id_of_job

_log = structlog.get_logger(__name__)

POP_SECONDS: Final = 1
"""How long one pop waits. A stopping worker runs what such a pop still brings."""

STARVED_SECONDS: Final = 30.0
_TURNED_POPS: Final = 10
"""When the first queue was never seen empty for so long, one pop in ten looks at the last queue first, so that a queue
that is never empty does not starve the others."""

_LONGEST_PAUSE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class PoppedJob:
    """A job that only we have now; nothing but the claim in PostgreSQL keeps it from being lost."""

    queue_key: str
    job_id: bytes


class Slot(threading.Thread):
    """Takes jobs until it is told to stop. Its connections to Redis, PostgreSQL and the mail server stay open."""

    def __init__(
        self, number: int, broker: "SlotBroker", processor: Processor, control: "Control", *, burst: bool
    ) -> None:
        """Keep what the loop needs."""
        super().__init__(name=f"slot-{number}", daemon=True)
        self._broker = broker
        self._processor = processor
        self._control = control
        self._burst = burst
        self._pops = number
        self._first_queue_empty_at = monotonic()
        self._job: PoppedJob | None = None
        self.busy = False
        """Has this slot a job in hand?"""

    @property
    def handling_since(self) -> float | None:
        """Since when (monotonic) the message in hand is claimed, prepared and sent; None between two of them."""
        return self._processor.handling_since

    def run(self) -> None:
        """Pop, work, tidy up; wait while Redis or PostgreSQL is away."""
        pause = 0.1
        while self._control.may_take_job():
            try:
                took = self._take_one()
            except (RedisError, OSError) as exc:
                if self._job is None:
                    self._control.give_ticket_back()
                self._control.note_redis(type(exc).__name__)
                self._control.stopping.wait(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
                continue
            except Exception as exc:  # noqa: BLE001 - a slot that ends would be missed by nobody
                _log.error("slot_failed", error=type(exc).__name__)
                self._control.stopping.wait(pause)
                continue
            self._control.note_redis(None)
            pause = 0.1
            if not took:
                self._control.give_ticket_back()
                if self._burst:
                    break
        self._processor.close()

    def _take_one(self) -> bool:
        """Take one job if there is one; True if there was."""
        self._job = None
        self._job = job = self._pop()
        if job is None:
            return False
        self.busy = True
        try:
            message_id = self._broker.message_id(job)
            if message_id is None:
                _log.warning("foreign_job", job=repr(job.job_id[:80]), meaning="it is not run")
                self._broker.refuse()
                return True
            verdict = self._processor.process(message_id)
        finally:
            self.busy = False
        self._control.note_job()
        self._broker.finish(job, succeeded=verdict in {Verdict.DONE, Verdict.NOT_CLAIMED})
        if verdict is Verdict.DATABASE_AWAY:
            self._wait_for_postgresql()
        return True

    def _pop(self) -> PoppedJob | None:
        self._pops += 1
        starved = monotonic() - self._first_queue_empty_at > STARVED_SECONDS
        turned = starved and self._pops % _TURNED_POPS == 0
        job = self._broker.pop(turned=turned, wait=not self._burst)
        if not turned and (job is None or not self._broker.is_of_first_queue(job)):
            self._first_queue_empty_at = monotonic()
        return job

    def _wait_for_postgresql(self) -> None:
        """Leave the jobs in Redis while nothing can be done with them."""
        pause = 0.1
        while not self._control.stopping.wait(pause) and not self._processor.database_answers():
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)


class Control:
    """What the slots and their worker tell each other."""

    def __init__(self, *, max_jobs: int | None) -> None:
        """Begin; `max_jobs` limits how many jobs are taken in all."""
        self.stopping = threading.Event()
        self.running = threading.Event()
        self.running.set()
        self._lock = threading.Lock()
        self._tickets = max_jobs
        self._redis_error: str | None = None
        self.jobs_done = 0
        self.last_job_at = monotonic()

    def may_take_job(self) -> bool:
        """Wait while the worker is suspended; then tell whether another job may be taken, and count it."""
        while not self.stopping.is_set():
            if self.running.wait(POP_SECONDS):
                break
        with self._lock:
            if self.stopping.is_set() or self._tickets == 0:
                return False
            if self._tickets is not None:
                self._tickets -= 1
            return True

    def give_ticket_back(self) -> None:
        """Say that no job was taken after all."""
        with self._lock:
            if self._tickets is not None:
                self._tickets += 1

    def note_job(self) -> None:
        """Count a job that is done."""
        with self._lock:
            self.jobs_done += 1
            self.last_job_at = monotonic()

    def note_redis(self, error: str | None) -> None:
        """Say once that Redis went away, and once that it is back."""
        if error == self._redis_error:
            return
        with self._lock:
            was, self._redis_error = self._redis_error, error
        if error is not None and was is None:
            _log.error("outage", of="redis", error=error, meaning="trying again until it is back")
        elif error is None:
            _log.info("back", of="redis")


class SlotBroker:
    """Redis as a slot sees it: RQ's lists and hashes, two round trips a job."""

    def __init__(self, client: Redis, queue_keys: list[str], job_key_prefix: str, worker_key: str) -> None:
        """Keep the client, and RQ's names for queues, jobs and this worker."""
        self._client = client
        self._queue_keys = queue_keys
        self._job_key_prefix = job_key_prefix.encode()
        self._worker_key = worker_key

    def pop(self, *, turned: bool, wait: bool) -> PoppedJob | None:
        """Take the next job, the first queue before the second unless `turned`. Raises RedisError."""
        keys = self._queue_keys[::-1] if turned else self._queue_keys
        if wait:
            popped: Any = self._client.blpop(keys, POP_SECONDS)
            return None if popped is None else PoppedJob(popped[0].decode(), popped[1])
        for key in keys:
            job_id: Any = self._client.lpop(key)
            if job_id is not None:
                return PoppedJob(key, job_id)
        return None

    def is_of_first_queue(self, job: PoppedJob) -> bool:
        """Tell whether the job came from the queue that goes before the others."""
        return job.queue_key == self._queue_keys[0]

    def message_id(self, job: PoppedJob) -> int | None:
        """Give the message that the job names, or None for a job that is not ours. Raises RedisError."""
        by_id = message_id_of_job(job.job_id)
        if by_id is not None:
            return by_id
        key = self._key(job)
        try:
            if not 0 < int(self._client.hstrlen(key, "data")) <= LARGEST_DATA_BYTES:
                return None
            data: Any = self._client.hget(key, "data")
        except RedisError:
            return None  # the key holds something else than a job
        return None if data is None else message_id_of_call(data)

    def finish(self, job: PoppedJob, *, succeeded: bool) -> None:
        """Delete the job and count it where `rq info` looks. Redis away: the reaper's next push has another id."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.unlink(self._key(job))
            pipe.hincrby(self._worker_key, "successful_job_count" if succeeded else "failed_job_count", 1)
            pipe.execute(raise_on_error=False)

    def refuse(self) -> None:
        """Count a job that is not ours; its hash stays for whoever wants to know where it came from."""
        self._client.hincrby(self._worker_key, "failed_job_count", 1)

    def _key(self, job: PoppedJob) -> bytes:
        return self._job_key_prefix + job.job_id
