"""The watch over what runs in the places of a worker, without threads."""

from collections.abc import Iterator
from queue import SimpleQueue
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from consumer.model.lease import Lease
from consumer.model.message import AttemptResult, ClaimedMessage, MessageToHandle
from consumer.model.outcomes import Released
from consumer.model.results import RecordedResult
from consumer.stages.database import Database
from consumer.threaded.state import WorkerState
from consumer.threaded.task_watch import TaskWatch
from consumer.threaded.work_queue import WorkQueue
from shared.database.connections import DbConnection, connect
from shared.outbox.claiming import claims
from tests.rows import add_message


@pytest.fixture
def connection(database_url: str) -> Iterator[DbConnection]:
    with connect(database_url, "test") as opened:
        yield opened


class Watched:
    """A watch, its queues, and messages that are claimed for thirty seconds."""

    def __init__(self, database_url: str, connection: DbConnection) -> None:
        self.connection = connection
        self.state = WorkerState(capacity=10, max_jobs=None)
        self.work: Any = WorkQueue()
        self.results: SimpleQueue[AttemptResult | RecordedResult | None] = SimpleQueue()
        self.database = Database(database_url)
        self.watch = TaskWatch(self.database, self.state, self.work, self.results)

    def claimed(self, count: int = 1, *, age: float = 0.0) -> list[ClaimedMessage]:
        ids = [add_message(self.connection, status="published") for _ in range(count)]
        lease = Lease(monotonic() - age, 30.0)
        return [ClaimedMessage(each, lease) for each in claims.claim(self.connection, ids, uuid4(), 30)]

    def lease_of(self, message: ClaimedMessage) -> float:
        [(seconds,)] = self.connection.execute(
            "SELECT extract(epoch FROM lease_until - claimed_at)::float8 FROM outbox WHERE id = %s", [message.claim.id]
        ).fetchall()
        return float(seconds)


@pytest.fixture
def watched(database_url: str, connection: DbConnection) -> Iterator[Watched]:
    opened = Watched(database_url, connection)
    yield opened
    opened.database.close()


def test_work_that_waits_too_long_for_a_place_is_released(watched: Watched) -> None:
    [old], [new] = watched.claimed(age=11), watched.claimed()
    for each in (old, new):
        watched.work.put(MessageToHandle(each))

    watched.watch.release_overdue_work()
    watched.work.close()

    result = watched.results.get_nowait()
    assert isinstance(result, AttemptResult)
    assert (result.message, type(result.outcome)) == (old, Released)
    taken = watched.work.get()
    assert taken is not None
    assert taken.work == MessageToHandle(new)


def test_what_runs_and_what_waits_is_released_at_the_end(watched: Watched) -> None:
    running, waiting = watched.claimed(2)
    watched.work.put(MessageToHandle(waiting))
    with watched.watch.begin([running], 60) as task:
        watched.watch.stop()
        assert task.end() is None

    released = [watched.results.get_nowait() for _ in range(2)]
    assert {each.message for each in released if isinstance(each, AttemptResult)} == {running, waiting}
    assert all(isinstance(each, AttemptResult) and isinstance(each.outcome, Released) for each in released)


def test_a_locked_row_keeps_no_other_lease_from_being_renewed(watched: Watched, database_url: str) -> None:
    messages = watched.claimed(2, age=11)
    with (
        watched.watch.begin(messages, 60) as running,
        connect(database_url, "a human") as human,
        human.transaction(),
    ):
        human.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [messages[0].claim.id])

        watched.watch.renew_leases()

        assert [each.lease.begin_until > monotonic() for each in running.messages] == [False, True]
        assert [watched.lease_of(each) > 30 for each in messages] == [False, True]


def test_messages_that_are_prepared_together_leave_room_for_others(watched: Watched) -> None:
    messages = watched.claimed(10)
    watched.state.add_jobs(10)

    with watched.watch.begin(messages, 60):
        free = watched.state.wait_for_capacity()
    watched.state.finish_jobs(10)

    assert (free, watched.state.wait_for_capacity()) == (9, 10)


def test_a_task_that_ends_twice_has_one_result(watched: Watched) -> None:
    [message] = watched.claimed()
    with watched.watch.begin([message], 0) as running:
        watched.watch.end_late_tasks()
        assert (watched.state.places_lost, watched.state.wait_for_capacity()) == (1, 9)
        assert running.end() is None

    assert watched.state.places_lost == 0
    assert watched.results.qsize() == 1
