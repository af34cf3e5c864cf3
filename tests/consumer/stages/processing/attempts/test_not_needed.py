"""A verification mail that is no longer needed is discarded with the reason, and not sent."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.model.results import Disposition
from embedded.mail.catcher import MailCatcher
from shared.outbox.claiming import claims
from tests.consumer.stages.processing.world import WELCOME, Logs, World
from tests.dispositions import disposition_lines
from tests.rows import add_message, add_user

VERIFIED = "an account with this address is already verified"
CORRECTED = "the address was corrected later, and a newer mail replaces this one"


def verify(world: World, username: str = "alice") -> None:
    world.connection.execute("UPDATE users SET is_email_verified = true WHERE username = %s", [username])


def correct(world: World, message_id: int) -> None:
    """Do what a correction of the address does, with this message as its mail."""
    world.connection.execute(
        "UPDATE users SET email = 'alice@corrected.example.com', first_mail_id = %s, email_set_at = now()", [message_id]
    )


def test_a_verified_account_gets_no_link(world: World, mailbox: MailCatcher, logs: Logs) -> None:
    verify(world)
    id_ = add_message(world.connection, status="published")

    assert world.process(id_) is Disposition.DISCARDED

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["last_error"]) == ("discarded", 1, f"discarded: {VERIFIED}")
    assert (row["failures"], row["claim_token"], row["finished_at"] is None) == ([], None, False)
    assert (mailbox.mails(), world.records(), world.rows("SELECT FROM outbox")) == ([], [], [])
    [line] = disposition_lines(logs)
    assert (line["log_level"], line["event"], line["reason"]) == ("info", "message.discarded", VERIFIED)


def test_an_address_verified_by_another_account_gets_no_link(world: World, mailbox: MailCatcher) -> None:
    world.connection.execute("DROP INDEX IF EXISTS users_email_key")  # one address, several accounts
    verify(world, add_user(world.connection, "owner", email="Alice@Example.com"))
    id_ = add_message(world.connection)

    assert world.process(id_) is Disposition.DISCARDED
    assert (world.message(id_)["last_error"], mailbox.mails()) == (f"discarded: {VERIFIED}", [])


def test_each_unverified_account_with_an_address_gets_its_link(world: World, mailbox: MailCatcher) -> None:
    world.connection.execute("DROP INDEX IF EXISTS users_email_key")
    add_user(world.connection, "owner", email="alice@example.com")
    ids = [add_message(world.connection, payload={"username": name}) for name in ("alice", "owner")]

    assert [world.process(id_) for id_ in ids] == [Disposition.DELIVERED] * 2
    assert len(mailbox.mails()) == 2


def test_a_correction_replaces_the_mails_before_it(world: World, mailbox: MailCatcher) -> None:
    before, correction, after = (add_message(world.connection) for _ in range(3))
    correct(world, correction)

    dispositions = [world.process(id_) for id_ in (before, correction, after)]

    assert dispositions == [Disposition.DISCARDED, Disposition.DELIVERED, Disposition.DELIVERED]
    assert world.message(before)["last_error"] == f"discarded: {CORRECTED}"
    assert [mail.recipients for mail in mailbox.mails()] == [("alice@corrected.example.com",)] * 2
    assert {record["message_id"] for record in world.records()} == {correction, after}


def test_a_retry_is_discarded_too_and_a_link_that_may_have_arrived_stays_valid(
    world: World, mailbox: MailCatcher
) -> None:
    mailbox.set_fault("drop-after-accept")
    id_ = add_message(world.connection)
    assert world.process(id_) is Disposition.FAILED
    [record] = world.records()
    verify(world)
    mailbox.set_fault(None)
    world.make_due(id_)

    assert world.process(id_) is Disposition.DISCARDED

    row = world.message(id_)
    assert (row["attempt"], len(row["failures"])) == (2, 1)
    assert (len(mailbox.mails()), world.records()) == (1, [record])


def test_a_verified_account_still_gets_its_welcome_mail(world: World, mailbox: MailCatcher) -> None:
    verify(world)
    id_ = add_message(world.connection, WELCOME)

    assert (world.process(id_), len(mailbox.mails())) == (Disposition.DELIVERED, 1)


@pytest.mark.parametrize("policy_code", [None, "5.7.1"])
def test_a_probe_that_is_not_needed_lets_another_one_be_sent(world: World, policy_code: str | None) -> None:
    """It found out nothing about the mail server."""
    verify(world)
    id_ = add_message(world.connection)
    world.open_breaker(probe_id=id_)
    world.connection.execute("UPDATE outbox_destinations SET policy_code = %s", [policy_code])

    assert world.process(id_) is Disposition.DISCARDED

    breaker = world.breaker()
    assert (breaker["opened_at"] is None, breaker["probe_id"]) == (False, None)
    assert timedelta(0) < breaker["probe_at"] - datetime.now(UTC) <= timedelta(seconds=1)


def test_a_worker_that_lost_the_claim_discards_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that has the claim decides again."""
    verify(world)
    id_ = add_message(world.connection)
    discard_claims = claims.discard_claims

    def after_it_was_taken_over(*arguments: Any) -> set[int]:
        world.connection.execute("UPDATE outbox SET claim_token = gen_random_uuid()")
        return discard_claims(*arguments)

    monkeypatch.setattr(claims, "discard_claims", after_it_was_taken_over)

    assert world.process(id_) is Disposition.CLAIM_LOST
    assert world.message(id_)["status"] == "running"
