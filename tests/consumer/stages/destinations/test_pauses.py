"""Nothing begins that is claimed after a pause, by whatever way its message came."""

import pytest

from consumer.model.results import Disposition
from consumer.stages.database import Database
from embedded.mail.catcher import MailCatcher
from shared.outbox.destinations import control
from shared.outbox.messages import LOCAL, UNKNOWN
from tests.consumer.stages.batches.steps import Steps
from tests.consumer.stages.destinations.calls import CRM, CallAnyone, CallCrm, Calls, WriteForCrm
from tests.rows import add_message, message


def test_a_paused_destination_gets_nothing_and_spends_nothing_until_it_is_resumed(calls: Calls) -> None:
    ids = [calls.add(), calls.add(WriteForCrm)]
    control.pause(calls.connection, CRM, "maintenance")

    assert [calls.process(id_) for id_ in ids] == [Disposition.RELEASED] * 2
    assert [(calls.row(id_)["attempt"], calls.row(id_)["status"]) for id_ in ids] == [(0, "pending")] * 2
    control.resume(calls.connection, CRM)

    assert [calls.process(id_) for id_ in ids] == [Disposition.DELIVERED] * 2
    assert calls.made == ids[:1]


def test_a_pause_between_claim_and_preparation_holds(database_url: str, calls: Calls) -> None:
    steps = Steps(Database(database_url), database_url)
    [claimed] = steps.claimed([add_message(calls.connection, status="published")])
    control.pause(calls.connection, "mail", "maintenance")

    step = steps.preparer.prepare([claimed])

    assert (step.work, [each.reason for each in step.results]) == ([], ["the destination mail is paused"])
    steps.database.close()


def test_a_pause_while_a_probe_is_out_keeps_both(calls: Calls) -> None:
    probe = calls.add()
    calls.open_breaker(probe)
    control.pause(calls.connection, CRM, "maintenance")

    assert calls.process(probe) is Disposition.RELEASED

    row = calls.destination()
    assert (calls.made, row["opened_at"] is None, row["paused_at"] is None, row["probe_id"]) == ([], False, False, None)
    assert 0 < row["to_probe"] <= 1


@pytest.mark.parametrize("destination", ["local", "webhook:1", None])
def test_a_row_that_names_another_destination_than_its_task_gets_around_no_pause(
    calls: Calls, mailbox: MailCatcher, destination: str | None
) -> None:
    id_ = add_message(calls.connection, destination=destination)
    control.pause(calls.connection, "mail", "maintenance")

    assert calls.process(id_) is Disposition.RELEASED

    assert (calls.row(id_)["destination"], mailbox.mails()) == ("mail", [])


def test_the_claim_fills_in_what_the_row_leaves_to_the_task(calls: Calls) -> None:
    ours, given = calls.add(max_retries=None), calls.add(max_retries=7)
    calls.fails_with(KeyError("x"))
    calls.process(ours)
    calls.process(given)

    assert [(calls.row(id_)["destination"], calls.row(id_)["max_retries"]) for id_ in (ours, given)] == [
        (CRM, 3),
        (CRM, 7),
    ]


def test_a_worker_that_does_not_know_a_task_leaves_its_destination_open(calls: Calls) -> None:
    id_ = add_message(calls.connection, "task:of_tomorrow", payload={})
    calls.process(id_)
    calls.connection.execute("UPDATE outbox SET task = %s, due_at = now()", [CallAnyone.task])

    assert calls.process(id_) is Disposition.DELIVERED

    assert message(calls.connection, id_)["destination"] == LOCAL


def test_a_task_that_nobody_knows_has_a_destination_of_which_little_is_published(calls: Calls) -> None:
    id_ = add_message(calls.connection, "task:of_tomorrow", max_retries=None)

    assert calls.process(id_) is Disposition.RELEASED

    row = message(calls.connection, id_)
    assert (row["destination"], row["max_retries"], row["attempt"]) == (UNKNOWN, None, 0)
    assert calls.destination(UNKNOWN)["slow_at"] is not None
    connection = calls.connection
    connection.execute("UPDATE outbox SET task = %s, payload = '{}', due_at = now()", [CallCrm.task])
    assert calls.process(id_) is Disposition.DELIVERED
    assert connection.execute("SELECT destination FROM outbox_finished").fetchone() == (CRM,)
