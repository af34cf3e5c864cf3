"""Recording the outcomes of many messages at once, and the threads around it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from redis import Redis

from consumer.model.lease import Lease
from consumer.model.message import AttemptResult
from consumer.model.outcomes import Accepted, Completed, DestinationUnavailable, Discarded, Failed, Outcome, Released
from consumer.model.results import Disposition, RecordedResult
from consumer.stages.database import Database
from consumer.stages.database_retries import RetryPolicy
from consumer.stages.place import Place
from consumer.stages.record import ResultRecorder
from consumer.stages.recording import busy_server
from consumer.task import Undeliverable
from consumer.threaded.completer import Completer
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.sender_thread import SenderThread
from consumer.threaded.state import WorkerState
from consumer.threaded.work_queue import WorkQueue
from shared.outbox.claiming.follow_ups import FollowUp
from tests.consumer.stages.batches.steps import Steps, add_messages, locked
from tests.redis_keys import KEYS
from tests.rows import message
from tests.waiting import wait_until


def test_outcomes_of_every_kind_are_written_together(steps: Steps, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 6)
    claimed = steps.claimed(ids)
    outcomes: list[Outcome] = [
        *(
            Accepted(),
            Failed("451"),
            Failed("554", is_permanent=True),
            Released("away"),
            DestinationUnavailable("gone"),
        ),
        Discarded("verified"),
    ]

    dispositions = steps.record(*zip(claimed, outcomes, strict=True))

    assert [dispositions[id_] for id_ in ids] == [
        Disposition.DELIVERED,
        Disposition.FAILED,
        Disposition.DEAD,
        Disposition.RELEASED,
        Disposition.RELEASED,
        Disposition.DISCARDED,
    ]
    assert [(row["status"], row["attempt"]) for row in (message(connection, id_) for id_ in ids)] == [
        ("done", 1),
        ("pending", 1),
        ("dead", 1),
        ("pending", 0),
        ("pending", 0),
        ("discarded", 1),
    ]


def test_a_claim_that_was_taken_over_by_the_same_worker_appends_nothing(
    steps: Steps, connection: "Connection[Any]"
) -> None:
    [id_] = add_messages(connection, 1)
    [former] = steps.claimed([id_])
    connection.execute("UPDATE outbox SET status = 'pending', claim_token = NULL, lease_until = NULL, due_at = now()")
    [present] = steps.claimed([id_])
    results = [
        AttemptResult(each, Completed([FollowUp("task:of_tomorrow", "default", None, payload)]))
        for each, payload in ((former, '"former"'), (present, '"present"'))
    ]

    recorded = steps.recorder.record(results)

    assert [each.disposition for each in recorded] == [Disposition.CLAIM_LOST, Disposition.DELIVERED]
    assert connection.execute("SELECT payload FROM outbox").fetchall() == [("present",)]


def test_whether_others_are_served_is_read_once_for_all_refusals(
    steps: Steps, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = steps.claimed(add_messages(connection, 5))
    asked: list[bool] = []
    serves_others = busy_server.serves_others

    def count(asking: Any) -> bool:
        asked.append(serves_others(asking))
        return asked[-1]

    monkeypatch.setattr(busy_server, "serves_others", count)

    for first, *others in (claimed[:3], claimed[3:]):
        steps.record(
            (first, Accepted()), *((each, DestinationUnavailable("421 too many", is_busy=True)) for each in others)
        )

    assert asked == [True, True]


def test_a_lost_claim_does_not_affect_the_others(steps: Steps, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    claimed = steps.claimed(ids)
    connection.execute("UPDATE outbox SET claim_token = gen_random_uuid() WHERE id = %s", [ids[1]])

    dispositions = steps.record(*((each, Accepted()) for each in claimed))

    assert [dispositions[id_] for id_ in ids] == [Disposition.DELIVERED, Disposition.CLAIM_LOST, Disposition.DELIVERED]


def test_an_outcome_that_postgresql_rejects_delays_no_other(steps: Steps, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    first, second, third = steps.claimed(ids)
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        f"CREATE TRIGGER refuse BEFORE INSERT ON outbox_finished FOR EACH ROW WHEN (NEW.id = {ids[1]})"
        " EXECUTE FUNCTION refuse()"
    )

    dispositions = steps.record((first, Accepted()), (second, Accepted()), (third, Accepted()))

    assert (dispositions, steps.recorder.has_unwritten) == (
        {ids[0]: Disposition.DELIVERED, ids[2]: Disposition.DELIVERED},
        True,
    )
    connection.execute("DROP TRIGGER refuse ON outbox_finished")
    assert [each.disposition for each in steps.recorder.retry()] == [Disposition.DELIVERED]
    assert not steps.recorder.has_unwritten


def test_a_locked_row_delays_no_other_outcome(quick_steps: Steps, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    claimed = quick_steps.claimed(ids)

    with locked(quick_steps.url, "SELECT FROM outbox WHERE id = %s FOR UPDATE", ids[1]):
        dispositions = quick_steps.record(*((each, Accepted()) for each in claimed))
        still_waiting = [*quick_steps.recorder.retry()]
    unlocked = quick_steps.recorder.retry()

    assert dispositions == {ids[0]: Disposition.DELIVERED, ids[2]: Disposition.DELIVERED}
    assert (still_waiting, [each.disposition for each in unlocked]) == ([], [Disposition.DELIVERED])
    assert not quick_steps.recorder.has_unwritten


def test_single_outcomes_do_not_wait_for_a_locked_row(
    steps: Steps, connection: "Connection[Any]", redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = steps.claimed(add_messages(connection, 41))
    tries: list[float] = []
    retry = steps.recorder.retry

    def count() -> Any:
        tries.append(0)
        return retry()

    monkeypatch.setattr(steps.recorder, "retry", count)
    results: SimpleQueue[AttemptResult | RecordedResult | None] = SimpleQueue()
    with closing(Redis.from_url(redis_url)) as redis:
        broker = WorkerBroker(redis, KEYS, ["q"], "one")
        state = WorkerState(capacity=50, max_jobs=None)
        state.add_jobs(41)
        completer = Completer(steps.recorder, steps.database, broker, state, RetryPolicy(), results)
        completer.start()
        with locked(steps.url, "SELECT FROM outbox WHERE id = %s FOR UPDATE", first.claim.id):
            results.put(AttemptResult(first, Accepted()))
            for each in others:
                results.put(AttemptResult(each, Accepted()))
                wait_until(partial(is_done, connection, each.claim.id), 10, "the outcome")
            tried_beside_them = len(tries)
        wait_until(lambda: status_of(connection, first.claim.id) == "done", 10, "the locked outcome")
        results.put(None)
        completer.join(10)

    # At its own times, 0.1, 0.2, 0.4 … seconds apart, and not after each of the others.
    assert 0 < tried_beside_them < len(others) / 2


def status_of(connection: "Connection[Any]", message_id: int) -> str:
    return str(message(connection, message_id)["status"])


def is_done(connection: "Connection[Any]", message_id: int) -> bool:
    return status_of(connection, message_id) == "done"


def test_a_rejected_outcome_is_given_up_when_the_lease_is_over(steps: Steps, connection: "Connection[Any]") -> None:
    [claimed] = steps.claimed(add_messages(connection, 1))
    unwritable = AttemptResult(claimed, Failed("\ud800"))

    assert (steps.recorder.record([unwritable]), steps.recorder.has_unwritten) == ([], True)
    late = AttemptResult(replace(claimed, lease=Lease(0.0, 0.0)), Failed("\ud800"))
    assert [each.disposition for each in steps.recorder.record([late])] == [Disposition.UNACKNOWLEDGED]


def test_what_postgresql_cannot_store_is_removed_from_a_reason(steps: Steps, connection: "Connection[Any]") -> None:
    assert Undeliverable("a\x00b\ud800c").reason == "a b c"


def test_a_completer_that_shuts_down_waits_for_postgresql_until_its_deadline(
    steps: Steps, connection: "Connection[Any]", redis_url: str
) -> None:
    claimed = steps.claimed(add_messages(connection, 2))
    results: SimpleQueue[AttemptResult | RecordedResult | None] = SimpleQueue()
    away = Database(steps.url)
    away.transaction = unreachable  # type: ignore[method-assign,assignment]
    pauses: list[float] = []

    def come_back(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            del away.transaction

    with closing(Redis.from_url(redis_url)) as redis:
        broker = WorkerBroker(redis, KEYS, ["q"], "one")
        state = WorkerState(capacity=2, max_jobs=None)
        state.add_jobs(2)
        completer = Completer(ResultRecorder(away, 1.0), away, broker, state, RetryPolicy(come_back), results)
        for each in (*(AttemptResult(each, Accepted()) for each in claimed), None):
            results.put(each)
        completer.run()

    assert ([message(connection, each.claim.id)["status"] for each in claimed], len(pauses)) == (["done"] * 2, 3)
    assert not state.is_busy


@pytest.mark.parametrize("bug", [ZeroDivisionError, SystemExit])
def test_a_sender_survives_a_bug_and_returns_an_outcome(
    steps: Steps, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch, bug: type[BaseException]
) -> None:
    def carry_out(_place: Place, _work: object) -> None:
        raise bug

    prepared = steps.preparer.prepare(steps.claimed(add_messages(connection, 2)))
    work = WorkQueue()
    results: SimpleQueue[AttemptResult | RecordedResult | None] = SimpleQueue()
    monkeypatch.setattr(Place, "carry_out", carry_out)
    for each in prepared.work:
        work.put(each)
    work.close()

    SenderThread(0, steps.place(), work, results).run()

    recorded = [results.get(), results.get()]
    expected = Failed(f"{bug.__name__} while the message was sent", maybe_accepted=True, is_unanswered=True)
    assert [each.outcome for each in recorded if isinstance(each, AttemptResult)] == [expected] * 2


@contextmanager
def unreachable(**_limits: int) -> Iterator[None]:
    raise psycopg.OperationalError
    yield


def test_unwritten_outcomes_can_be_given_up(steps: Steps, connection: "Connection[Any]") -> None:
    [claimed] = steps.claimed(add_messages(connection, 1))
    connection.execute("ALTER TABLE outbox_finished RENAME TO elsewhere")

    assert steps.record((claimed, Accepted())) == {}
    assert [each.disposition for each in steps.recorder.give_up()] == [Disposition.UNACKNOWLEDGED]
    assert not steps.recorder.has_unwritten
