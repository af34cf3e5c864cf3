"""The SenderThread of an OutboxWorker: a place that carries out one unit of work after the other."""

import threading
from queue import SimpleQueue

from consumer.model.message import AttemptResult
from consumer.model.outcomes import Failed, Released
from consumer.model.results import RecordedResult, StepResult
from consumer.stages.limiter import SPREAD_SECONDS
from consumer.stages.place import Place
from consumer.threaded.work_queue import TakenWork, WorkQueue


class SenderThread(threading.Thread):
    """Carries out work until its queue is closed."""

    def __init__(
        self,
        number: int,
        place: Place,
        work: WorkQueue,
        results: "SimpleQueue[AttemptResult | RecordedResult | None]",
    ) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._place = place
        self._work = work
        self._results = results

    @property
    def busy_since(self) -> float | None:
        """When (monotonic) the work in hand was started; None between two, and while a handler runs."""
        return self._place.busy_since

    def run(self) -> None:
        """Carry out all work, and put a result for each message into the queue."""
        while (taken := self._work.get()) is not None:
            step = self._step(taken)
            for each in step.work:
                self._work.put(each)
            for result in step.all_results:
                self._results.put(result)
        self._place.close()

    def _step(self, taken: TakenWork) -> StepResult:
        work, turn = taken.work, taken.turn
        if turn is None:
            self._mark_slow(taken)
            refusal = Released("its destination is slow, and has no further place here", spread_seconds=SPREAD_SECONDS)
            return StepResult(results=[AttemptResult(each, refusal) for each in work.messages])
        try:
            step = self._place.carry_out(work)
        except BaseException as exc:  # noqa: BLE001 - a bug must not end the thread
            reason = f"{type(exc).__name__} while the message was sent"
            failure = Failed(reason, maybe_accepted=True, is_unanswered=True)
            step = StepResult(results=[AttemptResult(each, failure) for each in work.messages])
        if self._work.end(turn, step):
            self._mark_slow(taken)
        return step

    def _mark_slow(self, taken: TakenWork) -> None:
        if taken.destination is not None:
            self._place.mark_slow(taken.destination)
