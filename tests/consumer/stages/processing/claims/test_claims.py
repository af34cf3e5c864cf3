"""Which messages are claimed, and what happens to them."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from consumer.model.results import Disposition
from consumer.stages.processor import Processor
from embedded.mail.catcher import MailCatcher
from shared.database.connections import connect
from shared.links import is_authentic
from tests.consumer.stages.processing.world import (
    KEY,
    VERIFY,
    WELCOME,
    Logs,
    Row,
    World,
    running,
    waits_for_a_lock,
)
from tests.dispositions import dispositions
from tests.rows import add_message
from tests.waiting import wait_until


@pytest.mark.parametrize("status", ["published", "pending"])
def test_a_message_is_sent_and_done(world: World, mailbox: MailCatcher, logs: Logs, status: str) -> None:
    id_ = add_message(world.connection, status=status)

    assert world.process(id_) is Disposition.DELIVERED

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["claim_token"], row["lease_until"]) == ("done", 1, None, None)
    assert row["finished_at"] >= row["claimed_at"]
    assert (row["last_error"], row["failures"]) == (None, [])
    [mail] = mailbox.mails()
    assert mail.recipients == ("alice@example.com",)
    assert mail.message["Message-ID"] == f"<{row['uid']}@example.org>"
    [line] = logs
    assert {**line, "seconds": 0} == {
        "event": "message.delivered",
        "log_level": "info",
        "message_id": id_,
        "task": VERIFY,
        "attempt": 1,
        "reason": None,
        "seconds": 0,
    }


def test_the_link_in_the_mail_is_signed_for_the_record(world: World, mailbox: MailCatcher) -> None:
    world.process(add_message(world.connection))

    [mail], [record] = mailbox.mails(), world.records()
    [link] = mail.links
    start, _, code = link.partition("&secret_code=")
    assert start == f"https://example.org/v1/verify_email?email_id={record['id']}"
    assert is_authentic([KEY], record["id"], "alice@example.com", code)
    assert timedelta(minutes=59) < record["expires_at"] - datetime.now(UTC) <= timedelta(minutes=60)


def test_the_welcome_mail_greets_the_user_and_makes_no_record(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection, WELCOME)

    assert world.process(id_) is Disposition.DELIVERED

    [mail] = mailbox.mails()
    assert ("Full name of alice" in mail.text, mail.links, world.records()) == (True, [], [])


def test_the_claim_is_committed_while_the_mail_is_sent(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection, status="published")
    mailbox.set_fault("data-hang")
    consumer = world.consumer(run_lease_seconds=3.0)
    with running(lambda: consumer.process(id_)) as disposition:
        wait_until(lambda: world.message(id_)["status"] == "running", 10, "the claim")
        row = world.message(id_)
        sending = world.rows("SELECT lease_until - claimed_at AS lease FROM outbox")

    assert (row["attempt"], row["claim_token"] is None) == (1, False)
    assert abs(sending[0]["lease"] - timedelta(seconds=3)) < timedelta(seconds=1)
    assert disposition.result() is Disposition.FAILED


@pytest.mark.parametrize(
    ("status", "columns"),
    [
        ("running", {}),
        ("running", {"lease_until": "2026-01-01T00:00:00Z"}),
        ("dead", {}),
        ("pending", {"due_at": "2100-01-01T00:00:00Z"}),
    ],
    ids=["running", "running past its lease", "dead", "not due"],
)
def test_only_a_waiting_message_is_claimed(
    world: World, mailbox: MailCatcher, logs: Logs, status: str, columns: Row
) -> None:
    id_ = add_message(world.connection, status=status, **columns)
    before = world.message(id_)

    assert world.process(id_) is Disposition.NOT_CLAIMED

    assert (world.message(id_), mailbox.mails(), dispositions(logs)) == (before, [], ["not_claimed"])


def test_a_finished_message_is_not_sent_again(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection)
    world.process(id_)
    before = world.message(id_)

    assert world.process(id_) is Disposition.NOT_CLAIMED

    assert (world.message(id_), len(mailbox.mails())) == (before, 1)


@pytest.mark.parametrize("unknown", [1_000_000, 2**63 - 1])
def test_a_message_that_does_not_exist_is_not_claimed(world: World, unknown: int) -> None:
    assert world.process(unknown) is Disposition.NOT_CLAIMED


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_the_claim_waits_for_the_relay_that_publishes_the_message(
    world: World, mailbox: MailCatcher, ending: str
) -> None:
    id_ = add_message(world.connection)
    consumer = world.consumer()
    with connect(world.settings.database_url, "relay") as relay:
        relay.execute("BEGIN")
        relay.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [id_])
        relay.execute(
            "UPDATE outbox SET status = 'published', broker_epoch = 'e', published_at = now(),"
            " lease_until = now() + interval '30 s' WHERE id = %s",
            [id_],
        )
        with running(lambda: consumer.process(id_)) as disposition:
            wait_until(lambda: waits_for_a_lock(world), 10, "the claim to wait for the relay's lock")
            relay.execute(ending)

    assert disposition.result() is Disposition.DELIVERED
    assert len(mailbox.mails()) == 1


def test_a_message_with_twenty_jobs_is_sent_once(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection, status="published")
    together = threading.Barrier(20)
    consumers = [world.consumer() for _ in range(20)]

    def process(consumer: Processor) -> Disposition:
        together.wait()
        return consumer.process(id_)

    with ThreadPoolExecutor(20) as pool:
        dispositions = Counter(pool.map(process, consumers))

    assert dispositions == {Disposition.DELIVERED: 1, Disposition.NOT_CLAIMED: 19}
    assert (len(mailbox.mails()), len(world.records())) == (1, 1)
    assert world.message(id_)["attempt"] == 1


def test_one_consumer_processes_many_messages(world: World, mailbox: MailCatcher) -> None:
    ids = [add_message(world.connection) for _ in range(5)]
    consumer = world.consumer()

    dispositions = [consumer.process(id_) for id_ in ids]

    assert dispositions == [Disposition.DELIVERED] * 5
    assert [mail.message["Message-ID"] for mail in mailbox.mails()] == [
        f"<{world.message(id_)['uid']}@example.org>" for id_ in ids
    ]


def test_a_payload_that_is_much_larger_when_decompressed_is_a_dead_letter(world: World, mailbox: MailCatcher) -> None:
    world.connection.execute("CREATE TABLE elsewhere AS SELECT to_jsonb(repeat('x', 20000000)) AS payload")
    [row] = world.rows(
        "INSERT INTO outbox (task, payload) SELECT 'task:send_verify_email', payload FROM elsewhere RETURNING id"
    )
    fine = add_message(world.connection)

    assert [world.process(id_) for id_ in (row["id"], fine)] == [Disposition.DEAD, Disposition.DELIVERED]

    assert "larger than 4 MiB" in world.message(row["id"])["last_error"]
