"""Attempts that fail: when the next one begins, and when there is none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from consumer.model.lease import Lease
from consumer.model.results import Disposition
from consumer.task import Context, Mail
from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK
from tests.consumer.stages.processing.world import MailTest, World, last_failure, raise_error, register
from tests.rows import add_message

# ---- failures


def break_statement(context: Context, _message: MailTest) -> Mail:
    context.connection.execute("SELECT 'alice@example.com'::integer")
    raise AssertionError


@pytest.mark.parametrize(
    ("prepare", "error"), [(raise_error, "KeyError"), (break_statement, "InvalidTextRepresentation")]
)
def test_a_task_that_raises_fails_with_the_name_of_its_error(
    world: World,
    prepare: Callable[[Context, MailTest], Mail],
    error: str,
) -> None:
    id_ = add_message(world.connection, register(world, prepare), status="published")
    before = datetime.now(UTC)

    assert world.process(id_) is Disposition.FAILED

    row = world.message(id_)
    reason = f"{error} while the message was prepared"
    assert (row["status"], row["attempt"], row["generation"], row["last_error"]) == ("pending", 1, 1, reason)
    assert [last_failure(row)] == [(1, reason, False)]
    assert timedelta(seconds=14) < row["due_at"] - before < timedelta(seconds=60)


def test_the_writes_of_a_task_that_raises_are_rolled_back(world: World) -> None:
    def write_and_raise(context: Context, _message: MailTest) -> Mail:
        context.connection.execute("UPDATE users SET full_name = 'changed'")
        raise RuntimeError

    id_ = add_message(world.connection, register(world, write_and_raise))

    assert world.process(id_) is Disposition.FAILED

    assert world.rows("SELECT full_name FROM users") == [{"full_name": "Full name of alice"}]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("rcpt-450", "refused: 450 fault switched on for rcpt"),
        ("data-451", "refused: 451 fault switched on for data"),
    ],
)
def test_a_refusal_for_now_is_a_failed_attempt(world: World, mailbox: MailCatcher, fault: str, reason: str) -> None:
    mailbox.set_fault(fault)
    id_ = add_message(world.connection)

    assert world.process(id_) is Disposition.FAILED

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"], row["last_error"]) == ("pending", 1, 1, reason)
    assert last_failure(row) == (1, reason, False)
    assert world.breaker()["opened_at"] is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("rcpt-550", "refused: 550 fault switched on for rcpt"),
        ("data-554", "refused: 554 fault switched on for data"),
    ],
)
def test_a_refusal_for_good_is_a_dead_letter(world: World, mailbox: MailCatcher, fault: str, reason: str) -> None:
    mailbox.set_fault(fault)
    id_ = add_message(world.connection)

    assert world.process(id_) is Disposition.DEAD

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["last_error"]) == ("dead", 1, reason)
    assert last_failure(row) == (1, reason, False)


def test_a_message_is_retried_until_its_attempts_are_spent(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("data-451")
    id_ = add_message(world.connection, max_retries=2)
    consumer = world.consumer()

    dispositions = []
    for _ in range(4):
        dispositions.append(consumer.process(id_))
        world.make_due(id_)

    assert dispositions == [Disposition.FAILED, Disposition.FAILED, Disposition.DEAD, Disposition.NOT_CLAIMED]
    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"]) == ("dead", 3, 2)
    assert [failure["attempt"] for failure in row["failures"]] == [1, 2, 3]


def test_without_retries_the_first_failure_is_the_last(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("data-451")

    assert world.process(add_message(world.connection, max_retries=0)) is Disposition.DEAD


def test_each_delay_is_longer_than_the_one_before(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("data-451")
    id_ = add_message(world.connection, attempt=5)
    before = datetime.now(UTC)

    world.process(id_)

    wait = world.message(id_)["due_at"] - before
    assert timedelta(seconds=5**4 + 15 - 1) < wait < timedelta(seconds=5**4 + 15 + 30 * 6 + 30)


def test_the_scale_shortens_the_delay(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("data-451")
    id_ = add_message(world.connection)

    world.process(id_, backoff_scale=0.0)

    assert world.message(id_)["due_at"] <= world.rows("SELECT clock_timestamp()")[0]["clock_timestamp"]


def test_only_the_latest_failures_are_kept(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("data-451")
    old = [{"at": "2026-01-01T00:00:00+00:00", "attempt": n, "reason": "r", "maybe_accepted": False} for n in range(20)]
    id_ = add_message(world.connection, attempt=20, max_retries=100, failures=Jsonb(old))

    world.process(id_)

    kept = [failure["attempt"] for failure in world.message(id_)["failures"]]
    assert kept == [*range(1, 20), 21]


@pytest.mark.parametrize(("fault", "mails"), [("drop-after-accept", 1), ("data-hang", 0)])
def test_a_timeout_after_the_dot_is_a_failure_that_may_have_been_accepted(
    world: World, mailbox: MailCatcher, fault: str, mails: int
) -> None:
    mailbox.set_fault(fault)
    id_ = add_message(world.connection, max_retries=0)

    assert world.process(id_, run_lease_seconds=3.0) is Disposition.DEAD

    attempt, reason, maybe_accepted = last_failure(world.message(id_))
    assert reason.startswith(f"no answer after the mail was sent: {LOOPBACK}:{mailbox.smtp_port}: ")
    assert (attempt, maybe_accepted) == (1, True)
    assert len(mailbox.mails()) == mails
    assert world.breaker()["opened_at"] is None


def test_a_lease_that_was_over_before_the_dot_is_a_failure_without_a_mail(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "is_over", lambda _self: True)
    id_ = add_message(world.connection)

    assert world.process(id_) is Disposition.FAILED

    assert last_failure(world.message(id_)) == (
        1,
        "the worker froze until its lease was over, and sent nothing",
        False,
    )
    assert mailbox.mails() == []


def test_a_worker_that_froze_before_it_could_send_releases_the_message(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "begin_until", 0.0)
    id_ = add_message(world.connection)

    assert world.process(id_) is Disposition.RELEASED

    row = world.message(id_)
    assert (row["status"], row["attempt"], world.breaker()["opened_at"], mailbox.mails()) == ("pending", 0, None, [])
