"""Outages of the mail server spend no attempt, and probes end them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from consumer.model.results import Disposition
from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK, free_port
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.world import Logs, World, running
from tests.dispositions import EVENTS
from tests.rows import add_message
from tests.waiting import wait_until


def test_an_outage_releases_the_message_and_opens_the_breaker(world: World, logs: Logs) -> None:
    id_ = add_message(world.connection, status="published", attempt=3)
    nobody = SmtpServer("smtp", LOOPBACK, free_port())

    assert world.process(id_, smtp_server=nobody) is Disposition.RELEASED

    reason = f"cannot connect to the mail server: {LOOPBACK}:{nobody.port}: Connection refused"
    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"], row["last_error"]) == ("pending", 3, 1, reason)
    assert (row["failures"], row["claim_token"], row["lease_until"]) == ([], None, None)
    breaker = world.breaker()
    assert (breaker["outages"], breaker["probe_id"], breaker["last_error"]) == (1, None, reason)
    assert breaker["opened_at"] is not None
    assert [(line["event"], line["log_level"], line.get("error")) for line in logs if line["event"] not in EVENTS] == [
        ("destination.unavailable", "error", reason)
    ]


def test_a_message_that_meets_an_outage_before_its_recipient_is_due_at_once(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("mail-451")
    id_ = add_message(world.connection)

    world.process(id_)

    assert world.message(id_)["due_at"] <= world.rows("SELECT clock_timestamp()")[0]["clock_timestamp"]


def test_a_message_that_meets_an_outage_after_mail_from_lets_others_go_first(
    world: World, mailbox: MailCatcher
) -> None:
    mailbox.set_fault("drop-before-data")
    id_ = add_message(world.connection)
    before = datetime.now(UTC)

    assert world.process(id_) is Disposition.RELEASED

    row = world.message(id_)
    assert timedelta(seconds=59) < row["due_at"] - before < timedelta(seconds=90)
    assert (row["attempt"], world.breaker()["opened_at"] is None) == (0, False)


def test_an_open_breaker_releases_messages_without_contacting_the_server(world: World, mailbox: MailCatcher) -> None:
    world.open_breaker(probe_id=1_000_000)
    before = world.breaker()
    id_ = add_message(world.connection, status="published", attempt=2, last_error="an old reason")

    assert world.process(id_) is Disposition.RELEASED

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"]) == ("pending", 2, 1)
    assert (row["last_error"], row["failures"]) == ("an old reason", [])
    assert (mailbox.mails(), world.records(), world.breaker()) == ([], [], before)


@pytest.mark.parametrize(
    ("fault", "disposition"),
    [(None, Disposition.DELIVERED), ("rcpt-550", Disposition.DEAD), ("data-451", Disposition.FAILED)],
)
def test_a_probe_that_the_server_answers_closes_the_breaker(
    world: World, mailbox: MailCatcher, logs: Logs, fault: str | None, disposition: Disposition
) -> None:
    mailbox.set_fault(fault)
    id_ = add_message(world.connection)
    world.open_breaker(probe_id=id_)

    assert world.process(id_) is disposition

    breaker = world.breaker()
    assert (breaker["opened_at"], breaker["outages"], breaker["probe_id"]) == (None, 0, None)
    assert [line["message_id"] for line in logs if line["event"] == "destination.recovered"] == [id_]


def test_each_probe_that_fails_doubles_the_pause_up_to_half_a_minute(world: World) -> None:
    id_ = add_message(world.connection)
    consumer = world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, free_port()))

    pauses = []
    for _ in range(8):
        before = datetime.now(UTC)
        assert consumer.process(id_) is Disposition.RELEASED
        after = datetime.now(UTC)
        probe_at = world.breaker()["probe_at"]
        pauses.append(((probe_at - after).total_seconds(), (probe_at - before).total_seconds()))
        world.connection.execute("UPDATE outbox_destinations SET probe_id = %s", [id_])

    expected = [1, 2, 4, 8, 16, 30, 30, 30]
    assert [(low, high) for (low, high), pause in zip(pauses, expected, strict=True) if not low <= pause <= high] == []
    assert world.breaker()["outages"] == 8


def test_ten_mails_that_meet_one_outage_count_as_one(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("mail-hang")
    ids = [add_message(world.connection) for _ in range(10)]
    consumers = [world.consumer(smtp_timeout_seconds=1.0) for _ in ids]

    with ThreadPoolExecutor(10) as pool:
        dispositions = list(pool.map(lambda consumer, id_: consumer.process(id_), consumers, ids))

    assert dispositions == [Disposition.RELEASED] * 10
    assert world.breaker()["outages"] == 1
    assert {world.message(id_)["attempt"] for id_ in ids} == {0}


def test_a_late_outage_does_not_affect_the_probe(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("mail-hang")
    late, probe = add_message(world.connection), add_message(world.connection)
    consumer = world.consumer(smtp_timeout_seconds=1.0)
    with running(lambda: consumer.process(late)):
        wait_until(lambda: world.message(late)["status"] == "running", 10, "the claim")
        world.open_breaker(probe_id=probe)
        before = world.breaker()

    after = world.breaker()
    assert [after[name] for name in ("probe_id", "probe_at", "outages")] == [
        before[name] for name in ("probe_id", "probe_at", "outages")
    ]


def test_a_probe_that_did_not_contact_the_server_lets_another_one_be_sent(world: World) -> None:
    id_ = add_message(world.connection, payload={"username": "gone"})
    world.open_breaker(probe_id=id_)

    assert world.process(id_) is Disposition.DEAD

    breaker = world.breaker()
    assert (breaker["opened_at"] is None, breaker["probe_id"]) == (False, None)
    assert timedelta(0) < breaker["probe_at"] - datetime.now(UTC) <= timedelta(seconds=1)


def test_a_probe_without_an_answer_to_the_dot_delays_the_next_one(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("drop-after-accept")
    id_ = add_message(world.connection)
    world.open_breaker(probe_id=id_)

    assert world.process(id_) is Disposition.FAILED

    breaker = world.breaker()
    assert (breaker["opened_at"] is None, breaker["probe_id"], breaker["is_probe_due"]) == (False, None, False)
