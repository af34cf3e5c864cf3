"""Outcomes that are written together."""

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
from consumer.model.message import AttemptResult, PreparedMail
from consumer.model.outcomes import Accepted, Discarded, Failed, Outcome, Released, ServerUnavailable
from consumer.model.results import Disposition
from consumer.stages import busy_server
from consumer.stages.database import Database
from consumer.stages.late_answers import LateAnswers
from consumer.stages.record import ResultRecorder
from consumer.stages.retry_policy import RetryPolicy
from consumer.stages.send import Sender, open_mailer
from consumer.task import UndeliverableError
from consumer.threaded.completer import Completer
from consumer.threaded.queue import WorkerBroker
from consumer.threaded.sender_thread import SenderThread
from consumer.threaded.state import WorkerState
from tests.consumer.stages.batches.desk import Desk, add_messages, locked
from tests.redis_keys import KEYS
from tests.rows import message
from tests.waiting import wait_until


def test_outcomes_of_every_kind_are_written_together(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 6)
    held = desk.hold(ids)
    outcomes: list[Outcome] = [
        *(Accepted(), Failed("451"), Failed("554", is_permanent=True), Released("away"), ServerUnavailable("gone")),
        Discarded("verified"),
    ]

    verdicts = desk.record(*zip(held, outcomes, strict=True))

    assert [verdicts[id_] for id_ in ids] == [
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


def test_whether_others_are_served_is_asked_once_for_all_refusals(
    desk: Desk, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    held = desk.hold(add_messages(connection, 5))
    asked: list[bool] = []
    serves_others = busy_server.serves_others

    def count(asking: Any) -> bool:
        asked.append(serves_others(asking))
        return asked[-1]

    monkeypatch.setattr(busy_server, "serves_others", count)

    for first, *others in (held[:3], held[3:]):
        desk.record((first, Accepted()), *((each, ServerUnavailable("421 too many", is_busy=True)) for each in others))

    assert asked == [True, True]


def test_what_is_not_ours_any_more_is_told_apart_from_what_is(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    held = desk.hold(ids)
    connection.execute("UPDATE outbox SET claim_token = gen_random_uuid() WHERE id = %s", [ids[1]])

    verdicts = desk.record(*((each, Accepted()) for each in held))

    assert [verdicts[id_] for id_ in ids] == [Disposition.DELIVERED, Disposition.CLAIM_LOST, Disposition.DELIVERED]


def test_an_outcome_that_postgresql_refuses_holds_up_no_other(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    first, second, third = desk.hold(ids)
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        f"CREATE TRIGGER refuse BEFORE INSERT ON outbox_finished FOR EACH ROW WHEN (NEW.id = {ids[1]})"
        " EXECUTE FUNCTION refuse()"
    )

    verdicts = desk.record((first, Accepted()), (second, Accepted()), (third, Accepted()))

    assert (verdicts, desk.recorder.has_unwritten) == (
        {ids[0]: Disposition.DELIVERED, ids[2]: Disposition.DELIVERED},
        True,
    )
    connection.execute("DROP TRIGGER refuse ON outbox_finished")
    assert [each.disposition for each in desk.recorder.retry()] == [Disposition.DELIVERED]
    assert not desk.recorder.has_unwritten


@pytest.mark.usefixtures("impatient")
def test_a_row_that_stays_locked_holds_up_no_other_outcome(desk: Desk, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 3)
    held = desk.hold(ids)

    with locked(desk.url, "SELECT FROM outbox WHERE id = %s FOR UPDATE", ids[1]):
        verdicts = desk.record(*((each, Accepted()) for each in held))
        still_waiting = [*desk.recorder.retry()]
    unlocked = desk.recorder.retry()

    assert verdicts == {ids[0]: Disposition.DELIVERED, ids[2]: Disposition.DELIVERED}
    assert (still_waiting, [each.disposition for each in unlocked]) == ([], [Disposition.DELIVERED])
    assert not desk.recorder.has_unwritten


def test_outcomes_that_come_one_by_one_do_not_wait_for_a_row_that_stays_locked(
    desk: Desk, connection: "Connection[Any]", redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = desk.hold(add_messages(connection, 41))
    tries: list[float] = []
    retry = desk.recorder.retry

    def count() -> Any:
        tries.append(0)
        return retry()

    monkeypatch.setattr(desk.recorder, "retry", count)
    results: SimpleQueue[AttemptResult | None] = SimpleQueue()
    with closing(Redis.from_url(redis_url)) as redis:
        broker = WorkerBroker(redis, KEYS, ["q"], "one")
        control = WorkerState(capacity=50, max_jobs=None)
        control.add_jobs(41)
        writer = Completer(desk.recorder, desk.database, broker, control, RetryPolicy(), results)
        writer.start()
        with locked(desk.url, "SELECT FROM outbox WHERE id = %s FOR UPDATE", first.claim.id):
            results.put(AttemptResult(first, Accepted()))
            for each in others:
                results.put(AttemptResult(each, Accepted()))
                wait_until(partial(is_done, connection, each.claim.id), 10, "the outcome")
            tried_beside_them = len(tries)
        wait_until(lambda: status_of(connection, first.claim.id) == "done", 10, "the locked outcome")
        results.put(None)
        writer.join(10)

    # By a clock of its own, 0.1, 0.2, 0.4 … seconds apart; not after each of the others.
    assert 0 < tried_beside_them < len(others) / 2


def status_of(connection: "Connection[Any]", message_id: int) -> str:
    return str(message(connection, message_id)["status"])


def is_done(connection: "Connection[Any]", message_id: int) -> bool:
    return status_of(connection, message_id) == "done"


def test_an_outcome_that_is_refused_for_good_is_let_go_when_the_lease_is_over(
    desk: Desk, connection: "Connection[Any]"
) -> None:
    [held] = desk.hold(add_messages(connection, 1))
    unwritable = AttemptResult(held, Failed("\ud800"))

    assert (desk.recorder.record([unwritable]), desk.recorder.has_unwritten) == ([], True)
    late = AttemptResult(replace(held, lease=Lease(0.0, 0.0)), Failed("\ud800"))
    assert [each.disposition for each in desk.recorder.record([late])] == [Disposition.UNACKNOWLEDGED]


def test_a_reason_of_a_task_is_kept_as_far_as_it_can_be(desk: Desk, connection: "Connection[Any]") -> None:
    assert UndeliverableError("a\x00b\ud800c").reason == "a b c"


def test_a_writer_that_has_to_leave_waits_for_postgresql_as_long_as_it_may(
    desk: Desk, connection: "Connection[Any]", redis_url: str
) -> None:
    held = desk.hold(add_messages(connection, 2))
    results: SimpleQueue[AttemptResult | None] = SimpleQueue()
    away = Database(desk.url)
    away.transaction = unreachable  # type: ignore[method-assign,assignment]
    pauses: list[float] = []

    def come_back(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            del away.transaction

    with closing(Redis.from_url(redis_url)) as redis:
        broker = WorkerBroker(redis, KEYS, ["q"], "one")
        control = WorkerState(capacity=2, max_jobs=None)
        control.add_jobs(2)
        writer = Completer(ResultRecorder(away, 1.0), away, broker, control, RetryPolicy(come_back), results)
        for each in (*(AttemptResult(each, Accepted()) for each in held), None):
            results.put(each)
        writer.run()

    assert ([message(connection, each.claim.id)["status"] for each in held], len(pauses)) == (["done"] * 2, 3)
    assert not control.is_busy


def test_a_sender_that_meets_a_defect_hands_on_an_outcome_and_goes_on(
    desk: Desk, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = desk.preparer.prepare(desk.hold(add_messages(connection, 2)))
    prepared_mails: SimpleQueue[PreparedMail | None] = SimpleQueue()
    results: SimpleQueue[AttemptResult | None] = SimpleQueue()
    monkeypatch.setattr(Sender, "send", lambda _self, _ready: 1 / 0)
    for each in (*prepared.mails, None):
        prepared_mails.put(each)

    late_answers = LateAnswers(desk.settings.database_url, senders=lambda: 1)
    SenderThread(0, Sender(desk.settings, open_mailer(desk.settings), late_answers), prepared_mails, results).run()

    ended = [results.get(), results.get()]
    expected = Failed("ZeroDivisionError while the mail was sent", maybe_accepted=True, is_unanswered=True)
    assert [each and each.outcome for each in ended] == [expected] * 2


@contextmanager
def unreachable(**_limits: int) -> Iterator[None]:
    raise psycopg.OperationalError
    yield


def test_what_could_not_be_written_can_be_let_go(desk: Desk, connection: "Connection[Any]") -> None:
    [held] = desk.hold(add_messages(connection, 1))
    connection.execute("ALTER TABLE outbox_finished RENAME TO elsewhere")

    assert desk.record((held, Accepted())) == {}
    assert [each.disposition for each in desk.recorder.give_up()] == [Disposition.UNACKNOWLEDGED]
    assert not desk.recorder.has_unwritten
