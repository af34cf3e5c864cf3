"""The Fetcher thread of an OutboxWorker: pops jobs, claims their messages, prepares mails and sorts out other work."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from time import monotonic
from typing import Final

import structlog
from redis.exceptions import RedisError, ResponseError

from consumer.model.message import AttemptResult
from consumer.model.results import Disposition, RecordedResult, log_result
from consumer.stages.claim import Claimer, NotClaimed
from consumer.stages.database import Database
from consumer.stages.prepare import Preparer
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.state import WorkerState
from consumer.threaded.timings import WorkerTimings
from consumer.threaded.work_queue import WorkQueue
from shared.doubling_pause import DoublingPause
from shared.logs import lines_of
from shared.rq_format.read import PoppedJob

_log = structlog.get_logger(__name__)

_JOBS_IN_ORDER: Final = 9
"""While a queue starves, one job in ten is taken from the last queue first, and the other nine in the usual order."""

_NamedJob = tuple[PoppedJob, int | None]
"""A job, and the id of the message that it names."""


class Fetcher(threading.Thread):
    """Takes as many jobs as there is capacity for: many at once from a backlog, else each as it arrives."""

    def __init__(  # noqa: PLR0913 - the steps before and after it
        self,
        broker: WorkerBroker,
        state: WorkerState,
        database: Database,
        claimer: Claimer,
        preparer: Preparer,
        *,
        burst: bool,
        timings: WorkerTimings,
        work: WorkQueue,
        results: "SimpleQueue[AttemptResult | RecordedResult | None]",
    ) -> None:
        """Start nothing yet.

        Args:
            broker: pops the jobs.
            state: says how many jobs to take, and when to stop.
            database: the connection of the claimer and the preparer.
            claimer: claims the messages.
            preparer: prepares their mails.
            burst: end when the queues are empty.
            timings: says when a queue starves.
            work: where work goes to be carried out.
            results: where results of messages without work go to be recorded.

        """
        super().__init__(name="fetcher", daemon=True)
        self._broker = broker
        self._state = state
        self._database = database
        self._claimer = claimer
        self._preparer = preparer
        self._burst = burst
        self._timings = timings
        self._work = work
        self._results = results
        self._unfinished = 0
        self._jobs_in_order = 0
        self._first_queue_empty_at = monotonic()
        self.has_finished = False
        """Whether the thread has ended normally."""

    @property
    def busy_since(self) -> float | None:
        """When (monotonic) the claim or preparation in progress started; None between them."""
        return self._database.busy_since

    def run(self) -> None:
        """Take jobs until told to stop; wait while Redis or PostgreSQL is unavailable."""
        pause = _outage_pause()
        # Popped jobs, no longer in any list, whose message Redis has yet to be asked for.
        unread: list[PoppedJob] = []
        while capacity := self._state.wait_for_capacity():
            named: list[_NamedJob] = []
            error: str | None = None
            try:
                unread = unread or self._pop(capacity)
                while unread:
                    named.append((unread[0], self._broker.message_id(unread[0])))
                    del unread[0]
            except (RedisError, OSError) as exc:
                error = self._broker.cause(exc)
            self._state.report_redis(error)
            if named:
                self._process(named)
            if error is not None:
                self._state.stopping.wait(pause.next())
                continue
            pause.reset()
            if not named and self._burst:
                break
        for job in unread:
            _log.warning(
                "job.dropped",
                job=repr(job.job_id[:80]),
                meaning="Redis became unavailable after the pop; a message that it names is published again",
            )
        self._database.close()
        self.has_finished = True

    def _pop(self, capacity: int) -> list[PoppedJob]:
        """Pop jobs of the first queue first. A first queue that is never empty does not starve the others."""
        is_starving = monotonic() - self._first_queue_empty_at > self._timings.starvation_seconds
        if is_starving and self._jobs_in_order >= _JOBS_IN_ORDER:
            self._jobs_in_order = 0
            return self._broker.pop(1, last_queue_first=True)
        most = min(capacity, _JOBS_IN_ORDER - self._jobs_in_order) if is_starving else capacity
        jobs = self._broker.pop(most)
        if len(jobs) < most or not self._broker.is_of_first_queue(jobs[-1]):
            self._first_queue_empty_at = monotonic()
        self._jobs_in_order = self._jobs_in_order + len(jobs) if is_starving else 0
        return jobs or ([] if self._burst else self._broker.wait_for_one())

    def _process(self, jobs: Sequence[_NamedJob]) -> None:
        """Claim the messages of popped jobs, prepare their mails, and pass them on or finish their jobs."""
        self._state.add_jobs(len(jobs))
        self._unfinished = len(jobs)
        try:
            claim_result = self._claimer.claim(self._wanted(jobs))
            step = self._preparer.prepare(claim_result.claimed)
            self._unfinished -= len(claim_result.claimed)
            for work in step.work:
                self._work.put(work)
            for result in step.all_results:
                self._results.put(result)
            self._finish_unclaimed(claim_result.not_claimed)
            if any(each.disposition is Disposition.UNACKNOWLEDGED for each in claim_result.not_claimed):
                self._wait_for_postgresql()
        except Exception as exc:  # noqa: BLE001 - a bug in one batch must not end the thread
            for ids in lines_of([message_id for _, message_id in jobs if message_id is not None]):
                _log.error("fetcher.failed", error=type(exc).__name__, message_ids=ids)
            self._finish_jobs(self._unfinished)

    def _wanted(self, jobs: Sequence[_NamedJob]) -> dict[int, PoppedJob | None]:
        """Return the messages to claim. A job that names no message, or one that is already named, is finished here."""
        wanted: dict[int, PoppedJob | None] = {}
        for job, message_id in jobs:
            if message_id is None:
                _log.warning("job.refused", job=repr(job.job_id[:80]), meaning=self._move_to_failed(job))
                self._finish_jobs(1)
            elif message_id in wanted:
                duplicate = NotClaimed(message_id, job, Disposition.NOT_CLAIMED, "another job names the same message")
                self._finish_unclaimed([duplicate])
            else:
                wanted[message_id] = job
        return wanted

    def _move_to_failed(self, job: PoppedJob) -> str:
        """Leave a foreign job to its owner, and return where it is."""
        try:
            kept = self._broker.move_to_failed(job)
        except (RedisError, OSError) as exc:
            return f"it is not run, and is in no list any more ({type(exc).__name__})"
        return "it is not run: look among the failed jobs of its queue" if kept else "it is not run: RQ has no such job"

    def _finish_unclaimed(self, not_claimed: Sequence[NotClaimed]) -> None:
        if not not_claimed:
            return
        unavailable = Disposition.UNACKNOWLEDGED
        failed = [each.job for each in not_claimed if each.job and each.disposition is unavailable]
        succeeded = [each.job for each in not_claimed if each.job and each.disposition is not unavailable]
        try:
            self._broker.finish(succeeded, failed)
        except ResponseError as exc:
            self._state.report_cleanup(self._broker.cause(exc))
        except (RedisError, OSError):
            pass  # the next pop reports it
        for each in not_claimed:
            log_result(each.message_id, each.disposition, None, each.reason)
        self._finish_jobs(len(not_claimed))

    def _finish_jobs(self, jobs: int) -> None:
        self._unfinished -= jobs
        self._state.finish_jobs(jobs)

    def _wait_for_postgresql(self) -> None:
        """Leave the jobs in Redis until PostgreSQL is available."""
        pause = _outage_pause()
        while not self._state.stopping.wait(pause.next()) and not self._database.answers():
            pass


def _outage_pause() -> DoublingPause:
    return DoublingPause(0.1, 5.0)
