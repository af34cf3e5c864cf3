"""How an OutboxWorker processes messages, and what RQ shows of it."""

from pathlib import Path

import pytest
from rq import Worker

from shared.outbox.messages import SendWelcomeEmail
from tests.consumer.threaded.service import WAIT, Service
from tests.dispositions import disposition_lines
from tests.programs.processes import OUTBOX_WORKER, RQ, events, run
from tests.redis_keys import KEYS
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


def test_messages_of_both_queues_are_done_and_leave_nothing_in_redis(service: Service) -> None:
    worker = service.start()

    ids = service.publish() + service.publish(1, SendWelcomeEmail.task, "default")
    service.wait_for_done(ids)

    assert sorted(mail.subject for mail in service.mailbox.mails()) == ["Verify your email address", "Welcome"]
    wait_until(lambda: not service.redis.keys(KEYS.job("*")), WAIT, "the jobs to be deleted")
    assert {(line["message_id"], line["event"]) for line in disposition_lines(events(worker))} == {
        (id_, "message.delivered") for id_ in ids
    }


def test_ten_mails_are_sent_at_once(service: Service) -> None:
    service.mailbox.set_fault("slow:0.5")
    service.start()

    ids = service.publish(10)

    wait_until(lambda: {service.status(id_) for id_ in ids} == {"running"}, WAIT, "ten messages in hand at once")
    service.mailbox.set_fault(None)
    service.wait_for_done(ids)


def test_the_critical_queue_goes_first(service: Service) -> None:
    later = service.publish(1, SendWelcomeEmail.task, "default")
    urgent = service.publish(20)

    service.start("--burst", WORKER_CONCURRENCY="1").wait(WAIT)

    assert service.sent() == urgent + later


def test_a_critical_queue_that_is_never_empty_does_not_starve_default(service: Service) -> None:
    urgent = service.publish(20)
    [other] = service.publish(1, SendWelcomeEmail.task, "default")

    service.start_fast("SoonStarving", "--burst", WORKER_CONCURRENCY="1").wait(WAIT)

    order = service.sent()
    assert sorted(order) == [*urgent, other]
    assert 0 < order.index(other) < 11


def test_rq_info_shows_the_worker(service: Service, tmp_path: Path) -> None:
    service.start("--name", "our-worker")

    shown = [
        run([RQ, "info"], {"RQ_REDIS_URL": service.redis_url, **own}, tmp_path / "info.log")
        for own in ({}, {"RQ_WORKER_CLASS": OUTBOX_WORKER})
    ]

    assert [(info.returncode, "our-worker (" in info.stdout) for info in shown] == [(0, True), (0, True)]


def test_finished_jobs_are_counted_for_rq_info(service: Service) -> None:
    service.start("--name", "our-worker")
    service.wait_for_done(service.publish(3))

    def counted() -> int:
        [shown] = Worker.all(connection=service.redis)
        return shown.successful_job_count

    wait_until(lambda: counted() == 3, WAIT, "three jobs to be counted")
