"""A worker that froze until its lease was over."""

import pytest

from consumer.model.results import Disposition
from embedded.mail.catcher import MailCatcher
from tests.consumer.stages.processing.world import Logs, World, running
from tests.dispositions import dispositions
from tests.rows import add_message
from tests.waiting import wait_until


@pytest.mark.parametrize("fault", ["", "data-451", "data-554", "drop-after-accept", "drop-before-data"])
def test_a_frozen_worker_changes_nothing_of_a_message_that_another_claimed(
    world: World, mailbox: MailCatcher, logs: Logs, fault: str
) -> None:
    mailbox.set_fault(f"slow:0.15 {fault}")
    id_ = add_message(world.connection)
    consumer = world.consumer()
    with running(lambda: consumer.process(id_)) as disposition:
        wait_until(lambda: world.message(id_)["status"] == "running", 10, "the claim")
        world.take_back(id_)
        world.connection.execute(
            "UPDATE outbox SET status = 'running', attempt = 2, claim_token = gen_random_uuid(),"
            " lease_until = now() + interval '30 s' WHERE id = %s",
            [id_],
        )
        taken_over = world.message(id_)

    assert disposition.result() is Disposition.CLAIM_LOST
    assert world.message(id_) == taken_over
    assert dispositions(logs) == ["claim_lost"]


def test_a_frozen_worker_does_not_report_anothers_work_as_its_own(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("slow:0.2")
    id_ = add_message(world.connection)
    consumer = world.consumer()
    with running(lambda: consumer.process(id_)) as disposition:
        wait_until(lambda: world.message(id_)["status"] == "running", 10, "the claim")
        world.take_back(id_)
        mailbox.set_fault(None)
        assert world.process(id_) is Disposition.DELIVERED
        finished = world.message(id_)

    assert disposition.result() is Disposition.CLAIM_LOST
    assert world.message(id_) == finished
