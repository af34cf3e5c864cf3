"""Work for a slow destination leaves half of a worker's places to others, and what gets none comes back soon."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from time import monotonic

import pytest

from consumer.model.lease import Lease
from consumer.model.message import AttemptResult, MessageToHandle
from consumer.model.outcomes import Completed, Released
from consumer.model.results import RecordedResult, StepResult
from consumer.stages.place import Place
from consumer.threaded.place_limits import SLOW_SECONDS
from consumer.threaded.sender_thread import SenderThread
from consumer.threaded.work_queue import WorkQueue
from shared.database.connections import DbConnection
from tests.consumer.stages.batches.steps import Steps
from tests.rows import add_message
from tests.waiting import wait_until

PLACES = 4
WAIT = 10.0

Results = SimpleQueue[AttemptResult | RecordedResult | None]


class Worker:
    """The places of a worker, whose work for `slow` does not end before `answer` is set."""

    def __init__(self, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer = threading.Event()
        self.running: list[str] = []
        self.done: list[str] = []
        self.refused: list[Released] = []
        self.work = WorkQueue(PLACES)
        self._results: Results = SimpleQueue()
        monkeypatch.setattr(Place, "carry_out", lambda _place, work: self._carry_out(work))
        self._threads = [SenderThread(number, steps.place(), self.work, self._results) for number in range(PLACES)]
        for thread in self._threads:
            thread.start()

    def _carry_out(self, work: MessageToHandle) -> StepResult:
        name = work.message.claim.destination
        self.running.append(name)
        if name == "slow":
            assert self.answer.wait(WAIT)
        self.running.remove(name)
        return StepResult(results=[AttemptResult(work.message, Completed())])

    def counts(self) -> tuple[int, int]:
        """Return how many messages were done and how many were refused."""
        while not self._results.empty():
            match self._results.get():
                case AttemptResult(outcome=Released() as released):
                    self.refused.append(released)
                case AttemptResult(message):
                    self.done.append(message.claim.destination)
                case _:
                    raise AssertionError
        return len(self.done), len(self.refused)

    def end(self) -> None:
        self.answer.set()
        self.work.close()
        for thread in self._threads:
            thread.join(WAIT)


@pytest.fixture
def worker(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    opened = Worker(steps, monkeypatch)
    yield opened
    opened.end()


def put(worker: Worker, steps: Steps, connection: DbConnection, destination: str, count: int) -> None:
    ids = [add_message(connection, "t", status="published", destination=destination) for _ in range(count)]
    for each in steps.claimed(ids):
        assert isinstance(each.lease, Lease)
        worker.work.put(MessageToHandle(each))


def test_a_slow_destination_leaves_half_of_the_places_to_others(
    worker: Worker, steps: Steps, connection: DbConnection
) -> None:
    began_at = monotonic()
    put(worker, steps, connection, "slow", PLACES)
    put(worker, steps, connection, "fast", PLACES)

    wait_until(lambda: worker.counts()[0] == PLACES, WAIT, "the others' work")
    others_took = monotonic() - began_at
    running = [*worker.running]
    wait_until(lambda: worker.counts()[1] == PLACES // 2, WAIT, "the refusals")

    assert (running, worker.done) == (["slow"] * (PLACES // 2), ["fast"] * PLACES)
    assert others_took < SLOW_SECONDS
    assert {each.spread_seconds for each in worker.refused} == {5.0}
    assert connection.execute("SELECT name, slow_at IS NOT NULL FROM outbox_destinations").fetchall() == [
        ("slow", True)
    ]


def test_a_destination_that_proves_to_be_fast_gets_every_place_and_refuses_nothing(
    worker: Worker, steps: Steps, connection: DbConnection
) -> None:
    put(worker, steps, connection, "slow", PLACES)
    wait_until(lambda: len(worker.running) == PLACES // 2, WAIT, "half of the places to be taken")

    worker.answer.set()

    wait_until(lambda: worker.counts()[0] == PLACES, WAIT, "all of them")
    assert worker.refused == []
