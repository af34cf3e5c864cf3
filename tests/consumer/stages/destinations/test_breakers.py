"""Each destination has a breaker of its own, which its own answers open and close."""

import pytest

from consumer.model.results import Disposition
from consumer.stages.recording.outcome_writer import UNAVAILABLE_AT_MOST
from consumer.task import RetryAfter, Unavailable, Undeliverable
from embedded.mail.catcher import MailCatcher
from shared.database.connections import connect, transaction
from tests.consumer.stages.destinations.calls import CRM, CallAnyone, Calls, WorkHere, WriteForCrm
from tests.consumer.stages.processing.world import Logs
from tests.rows import add_message

DOWN = Unavailable("503 from the CRM")


def counted(calls: Calls, message_id: int) -> object:
    failures = calls.row(message_id)["failures"]
    return failures[0]["counts"]["unavailable"] if failures else 0


def test_a_destination_that_is_unavailable_delays_no_other(calls: Calls, logs: Logs, mailbox: MailCatcher) -> None:
    found, waiting, mail = calls.add(), calls.add(), add_message(calls.connection)
    calls.fails_with(DOWN)

    assert calls.process(found) is Disposition.RELEASED
    assert calls.process(waiting) is Disposition.RELEASED
    assert calls.process(mail) is Disposition.DELIVERED

    assert (calls.made, len(mailbox.mails()), calls.destinations()) == ([found], 1, [CRM])
    assert [calls.row(id_)["attempt"] for id_ in (found, waiting)] == [0, 0]
    assert [(line["destination"], line["error"]) for line in logs if line["event"] == "destination.unavailable"] == [
        (CRM, DOWN.reason)
    ]


def test_a_handler_that_returns_closes_the_breaker_of_its_destination(calls: Calls, logs: Logs) -> None:
    probe = calls.add()
    calls.open_breaker(probe)
    calls.open_breaker(None, "mail")

    assert calls.process(probe) is Disposition.DELIVERED

    assert (calls.destination()["opened_at"], calls.destination("mail")["opened_at"] is None) == (None, False)
    assert calls.destination()["slow_at"] is not None
    assert [line["destination"] for line in logs if line["event"] == "destination.recovered"] == [CRM]


@pytest.mark.parametrize("error", [KeyError("x"), RetryAfter(5), Undeliverable("no"), SystemExit(3)])
def test_a_handler_that_raises_says_nothing_about_its_destination(calls: Calls, error: BaseException) -> None:
    probe = calls.add()
    calls.open_breaker(probe)
    calls.fails_with(error)

    calls.process(probe)

    row = calls.destination()
    assert (row["opened_at"] is None, row["probe_id"]) == (False, None)
    assert 0 < row["to_probe"] <= 1


def test_what_is_done_without_its_destination_says_nothing_about_it(calls: Calls) -> None:
    probe = calls.add(WriteForCrm)
    calls.open_breaker(probe)

    assert calls.process(probe) is Disposition.DELIVERED

    row = calls.destination()
    assert (row["opened_at"] is None, row["probe_id"]) == (False, None)
    assert 0 < row["to_probe"] <= 1


def test_work_without_a_destination_outside_has_no_breaker(calls: Calls, logs: Logs) -> None:
    id_ = calls.add(WorkHere)
    calls.fails_with(DOWN)

    assert calls.process(id_) is Disposition.RELEASED

    assert (calls.destinations(), calls.row(id_)["attempt"], counted(calls, id_)) == ([], 0, 1)
    [(seconds,)] = calls.connection.execute("SELECT extract(epoch FROM due_at - now())::float8 FROM outbox").fetchall()
    assert 50 < seconds <= 60
    assert "destination.unavailable" not in [line["event"] for line in logs]


@pytest.mark.parametrize(
    ("times", "disposition", "attempt"),
    [(UNAVAILABLE_AT_MOST - 1, Disposition.RELEASED, 0), (UNAVAILABLE_AT_MOST, Disposition.FAILED, 1)],
)
def test_a_destination_that_is_unavailable_to_one_message_a_hundred_times_fails_its_attempts(
    calls: Calls, times: int, disposition: Disposition, attempt: int
) -> None:
    id_ = calls.add()
    calls.connection.execute(
        "UPDATE outbox SET failures = jsonb_build_array(jsonb_build_object('counts',"
        " jsonb_build_object('unavailable', %s::integer)))",
        [times],
    )
    calls.fails_with(DOWN)

    assert calls.process(id_) is disposition

    assert (calls.row(id_)["attempt"], counted(calls, id_)) == (attempt, UNAVAILABLE_AT_MOST)
    assert (calls.destinations() == [CRM]) is (disposition is Disposition.RELEASED)


def test_what_a_probe_finds_during_an_outage_is_not_counted(calls: Calls) -> None:
    probe = calls.add()
    calls.open_breaker(probe)
    calls.fails_with(DOWN)

    assert calls.process(probe) is Disposition.RELEASED

    assert (counted(calls, probe), calls.destination()["outages"]) == (0, 2)


def test_a_locked_row_of_a_destination_keeps_no_outcome_from_being_written(calls: Calls, logs: Logs) -> None:
    found, mail = calls.add(), add_message(calls.connection)
    calls.open_breaker(found)
    calls.open_breaker(mail, "mail")
    with connect(calls.world.url, "a human") as human, transaction(human):
        human.execute("SELECT FROM outbox_destinations WHERE name = %s FOR UPDATE", [CRM])

        assert calls.process(found) is Disposition.DELIVERED
        assert calls.process(mail) is Disposition.DELIVERED

    assert [calls.destination(name)["opened_at"] is None for name in (CRM, "mail")] == [False, True]
    assert [line["destination"] for line in logs if line["event"] == "destination.not_written"] == [CRM]


def test_an_outage_that_cannot_be_written_is_not_counted_and_its_message_waits(calls: Calls) -> None:
    id_ = calls.add()
    calls.connection.execute("INSERT INTO outbox_destinations (name) VALUES (%s)", [CRM])
    calls.fails_with(DOWN)
    with connect(calls.world.url, "a human") as human, transaction(human):
        human.execute("SELECT FROM outbox_destinations WHERE name = %s FOR UPDATE", [CRM])

        assert calls.process(id_) is Disposition.RELEASED

    [(seconds,)] = calls.connection.execute("SELECT extract(epoch FROM due_at - now())::float8 FROM outbox").fetchall()
    assert (calls.row(id_)["attempt"], counted(calls, id_)) == (0, 0)
    assert 0 < seconds <= 5


def test_the_probe_of_a_destination_that_turns_out_to_be_anothers_lets_another_be_sent(calls: Calls) -> None:
    probe = calls.add(destination="former")
    calls.open_breaker(probe, "former")

    assert calls.process(probe) is Disposition.DELIVERED

    row = calls.destination("former")
    assert (row["opened_at"] is None, row["probe_id"]) == (False, None)
    assert row["to_probe"] <= 0


def test_a_task_without_a_destination_has_that_of_the_row(calls: Calls) -> None:
    ids = [calls.add(CallAnyone, destination=f"crm:{number}") for number in (1, 2)]
    calls.fails_with(DOWN)
    calls.process(ids[0])
    calls.answer = lambda: None

    assert [calls.process(id_) for id_ in (*ids, calls.add(CallAnyone))] == [
        Disposition.RELEASED,
        Disposition.DELIVERED,
        Disposition.DELIVERED,
    ]
    assert calls.destinations() == ["crm:1"]
