"""The intake of an OutboxWorker: takes jobs, claims their messages, and hands the mails over to be sent."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from time import monotonic
from typing import Final

import structlog
from redis.exceptions import RedisError, ResponseError

from consumer.model.message import Ended, Ready
from consumer.model.results import Verdict, tell
from consumer.stages.claim import Claimer, NotHeld
from consumer.stages.database import Database
from consumer.stages.prepare import Preparer
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.state import Control
from shared.logs import lines_of
from shared.outbox.messages import STARVED_SECONDS
from shared.rq_format.read import PoppedJob

_log = structlog.get_logger(__name__)

_STRAIGHT_JOBS: Final = 9
"""When the first queue was never empty for STARVED_SECONDS, one job in ten is taken from the last queue first: a queue
that is never empty does not starve the others."""

_Named = tuple[PoppedJob, int | None]
"""A job, and the message that it names."""

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0


class Intake(threading.Thread):
    """Takes as many jobs as there is room for: many at once when there is a backlog, else each as it comes."""

    def __init__(  # noqa: PLR0913 - all that stands around it
        self,
        broker: WorkerBroker,
        control: Control,
        database: Database,
        claimer: Claimer,
        preparer: Preparer,
        *,
        burst: bool,
        to_send: "SimpleQueue[Ready | None]",
        to_write: "SimpleQueue[Ended | None]",
    ) -> None:
        """Keep what the loop needs; `burst` ends it when the queues are empty."""
        super().__init__(name="intake", daemon=True)
        self._broker = broker
        self._control = control
        self._database = database
        self._claimer = claimer
        self._preparer = preparer
        self._burst = burst
        self._to_send = to_send
        self._to_write = to_write
        self._unsettled = 0
        self._straight_jobs = 0
        self._first_queue_empty_at = monotonic()
        self.has_finished = False
        """Whether it has ended as it should."""

    @property
    def busy_since(self) -> float | None:
        """Since when (monotonic) messages are claimed or their mails prepared; None between two times."""
        return self._database.busy_since

    def run(self) -> None:
        """Take jobs until told to stop; wait while Redis or PostgreSQL is away."""
        pause = _FIRST_PAUSE_SECONDS
        # In no list any more, and in our hands alone: those that Redis still has to be asked about.
        unread: list[PoppedJob] = []
        while room := self._control.wait_for_room():
            named: list[_Named] = []
            away: str | None = None
            try:
                unread = unread or self._pop(room)
                while unread:
                    named.append((unread[0], self._broker.message_id(unread[0])))
                    del unread[0]
            except (RedisError, OSError) as exc:
                away = self._broker.cause(exc)
            self._control.note_redis(away)
            if named:
                self._take(named)
            if away is not None:
                self._control.stopping.wait(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
                continue
            pause = _FIRST_PAUSE_SECONDS
            if not named and self._burst:
                break
        for job in unread:
            _log.warning(
                "job.dropped",
                job=repr(job.job_id[:80]),
                meaning="Redis went away after its pop; a message that it names comes back by its lease",
            )
        self._database.close()
        self.has_finished = True

    def _pop(self, room: int) -> list[PoppedJob]:
        is_starving = monotonic() - self._first_queue_empty_at > STARVED_SECONDS
        if is_starving and self._straight_jobs >= _STRAIGHT_JOBS:
            self._straight_jobs = 0
            return self._broker.pop(1, last_queue_first=True)
        most = min(room, _STRAIGHT_JOBS - self._straight_jobs) if is_starving else room
        jobs = self._broker.pop(most)
        if len(jobs) < most or not self._broker.is_of_first_queue(jobs[-1]):
            self._first_queue_empty_at = monotonic()
        self._straight_jobs = self._straight_jobs + len(jobs) if is_starving else 0
        return jobs or ([] if self._burst else self._broker.wait_for_one())

    def _take(self, jobs: Sequence[_Named]) -> None:
        """Work on jobs that only we have now. Whatever happens, each is handed over or let go."""
        self._control.took(len(jobs))
        self._unsettled = len(jobs)
        try:
            claimed = self._claimer.claim(self._sorted(jobs))
            prepared = self._preparer.prepare(claimed.held)
            self._unsettled -= len(claimed.held)
            for ready in prepared.ready:
                self._to_send.put(ready)
            for ended in prepared.ended:
                self._to_write.put(ended)
            self._let_go(claimed.not_held)
            if any(each.verdict is Verdict.DATABASE_AWAY for each in claimed.not_held):
                self._wait_for_postgresql()
        except Exception as exc:  # noqa: BLE001 - a defect at one batch is not the end of the intake
            for ids in lines_of([message_id for _, message_id in jobs if message_id is not None]):
                _log.error("fetcher.failed", error=type(exc).__name__, message_ids=ids)
            self._settle(self._unsettled)

    def _sorted(self, jobs: Sequence[_Named]) -> dict[int, PoppedJob | None]:
        """Give the messages that the jobs name; what names none, or one that another job names, is let go."""
        wanted: dict[int, PoppedJob | None] = {}
        for job, message_id in jobs:
            if message_id is None:
                _log.warning("job.refused", job=repr(job.job_id[:80]), meaning=self._refused(job))
                self._settle(1)
            elif message_id in wanted:
                self._let_go([NotHeld(message_id, job, Verdict.NOT_CLAIMED, "another job names it too")])
            else:
                wanted[message_id] = job
        return wanted

    def _refused(self, job: PoppedJob) -> str:
        """Leave the job to its owner, and say where."""
        try:
            kept = self._broker.refuse(job)
        except (RedisError, OSError) as exc:
            return f"it is not run, and in no list any more ({type(exc).__name__})"
        return "it is not run: look among the failed jobs of its queue" if kept else "it is not run: RQ has no such job"

    def _let_go(self, not_held: Sequence[NotHeld]) -> None:
        if not not_held:
            return
        away = [each.job for each in not_held if each.job and each.verdict is Verdict.DATABASE_AWAY]
        done = [each.job for each in not_held if each.job and each.verdict is not Verdict.DATABASE_AWAY]
        try:
            self._broker.finish(done, away)
        except ResponseError as exc:
            self._control.note_tidying(self._broker.cause(exc))
        except (RedisError, OSError):
            pass  # the next pop tells
        for each in not_held:
            tell(each.message_id, each.verdict, None, each.reason)
        self._settle(len(not_held))

    def _settle(self, jobs: int) -> None:
        self._unsettled -= jobs
        self._control.settled(jobs)

    def _wait_for_postgresql(self) -> None:
        """Leave the jobs in Redis while nothing can be done with them."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._control.stopping.wait(pause) and not self._database.answers():
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
