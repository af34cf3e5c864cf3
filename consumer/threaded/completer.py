"""The Completer thread of an OutboxWorker: records results in PostgreSQL, then deletes their jobs in Redis."""

import threading
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

import structlog
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from consumer.model.message import AttemptResult
from consumer.model.results import Disposition, RecordedResult, log_result
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy, database_pause
from consumer.stages.record import ResultRecorder
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.state import WorkerState
from shared.rq_format.read import PoppedJob

_log = structlog.get_logger(__name__)

_LARGEST_BATCH: Final = 100

_UNDELETED_KEPT: Final = 10_000
"""More jobs than are in hand when Redis becomes unavailable. The limit is for a Redis that returns jobs and refuses to
delete them."""


class Completer(threading.Thread):
    """Records results until it takes None from its queue: all that are waiting in one transaction."""

    def __init__(
        self,
        recorder: ResultRecorder,
        database: Database,
        broker: WorkerBroker,
        state: WorkerState,
        policy: RetryPolicy,
        results: "SimpleQueue[AttemptResult | RecordedResult | None]",
    ) -> None:
        """Start nothing yet. The broker's client needs a short timeout: results wait while Redis is asked."""
        super().__init__(name="completer", daemon=True)
        self._recorder = recorder
        self._database = database
        self._broker = broker
        self._state = state
        self._policy = policy
        self._results = results
        self._pause = database_pause()
        self._retry_at: float | None = None
        self._undeleted: deque[tuple[PoppedJob, Disposition]] = deque(maxlen=_UNDELETED_KEPT)

    @property
    def busy_since(self) -> float | None:
        """When (monotonic) the transaction in progress started; None between transactions."""
        return self._database.busy_since

    def run(self) -> None:
        """Record results until there are no more. Then retry what is unwritten until the shutdown's deadline."""
        while (batch := self._next_batch()) is not None:
            recorded = [each for each in batch if isinstance(each, RecordedResult)]
            if to_record := [each for each in batch if isinstance(each, AttemptResult)]:
                recorded += self._recorder.record(to_record)
            if recorded:
                self._complete(recorded)
            self._retry_if_due()
        pause = database_pause()
        while self._recorder.has_unwritten and not self._policy.deadline_passed():
            self._policy.sleep(pause.next())
            self._complete(self._recorder.retry())
        self._complete(self._recorder.give_up())
        self._database.close()

    def _retry_if_due(self) -> None:
        """Retry unwritten results after pauses of their own, so that new results do not wait for them."""
        if not self._recorder.has_unwritten:
            self._pause.reset()
            self._retry_at = None
        elif self._retry_at is None:
            self._retry_at = monotonic() + self._pause.next()
        elif monotonic() >= self._retry_at:
            self._complete(self._recorder.retry())
            self._retry_at = monotonic() + self._pause.next()

    def _next_batch(self) -> list[AttemptResult | RecordedResult] | None:
        """Wait for a result and return it with all others that are waiting.

        Returns None at the end of the queue, and an empty list when a retry is due.
        """
        try:
            first = self._results.get(timeout=self._seconds_to_retry())
        except Empty:
            return []
        if first is None:
            return None
        batch = [first]
        while len(batch) < _LARGEST_BATCH:
            try:
                another = self._results.get_nowait()
            except Empty:
                break
            if another is None:
                self._results.put(None)
                break
            batch.append(another)
        return batch

    def _seconds_to_retry(self) -> float | None:
        return None if self._retry_at is None else max(0.0, self._retry_at - monotonic())

    def _complete(self, recorded: Sequence[RecordedResult]) -> None:
        """Free capacity, log each result, and delete the jobs."""
        self._state.finish_jobs(len(recorded))
        try:
            for each in recorded:
                message = each.result.message
                log_result(message.claim.id, each.disposition, message, each.result.reason)
            self._delete_jobs(recorded)
        except ReadOnlyError as exc:
            self._state.report_redis(self._broker.cause(exc))
        except ResponseError as exc:
            self._state.report_cleanup(self._broker.cause(exc))
        except (RedisError, OSError) as exc:
            self._state.report_redis(self._broker.cause(exc))
        except Exception as exc:  # noqa: BLE001 - a bug must not end the thread
            _log.error("jobs.not_deleted", error=type(exc).__name__)

    def _delete_jobs(self, recorded: Sequence[RecordedResult]) -> None:
        """Delete the jobs of these results, and those that Redis was unavailable for. Raises RedisError.

        While Redis is unavailable it is not asked, so that no result waits for it. If the worker ends before Redis is
        back, the hashes of its last jobs stay there, some hundred bytes each. No list names them, so they never run
        again. They do not expire either: RQ sets an expiry only when its own class finishes a job.
        """
        self._undeleted.extend(
            (each.result.message.job, each.disposition) for each in recorded if each.result.message.job is not None
        )
        if not self._undeleted or self._state.redis_unavailable:
            return
        succeeded = [job for job, disposition in self._undeleted if disposition is Disposition.DELIVERED]
        failed = [job for job, disposition in self._undeleted if disposition is not Disposition.DELIVERED]
        self._broker.finish(succeeded, failed)
        self._state.report_cleanup(None)
        self._undeleted.clear()
