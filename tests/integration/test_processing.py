"""One message from its claim to its outcome, against a real PostgreSQL and a real mail server."""

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from time import monotonic
from typing import Any

import psycopg
import pytest
import structlog
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from consumer import processing
from consumer.database import Database
from consumer.lease import Lease
from consumer.processing import Processor
from consumer.registry import TASKS
from consumer.task import Mail, Payload, Preparation, Prepared, Task, UserPayload
from consumer.verdicts import Verdict
from embedded.mail_catcher import MailCatcher
from embedded.ports import LOOPBACK, free_port
from embedded.postgres import PostgresServer
from shared.database import DbConnection, connect, transaction
from shared.links import is_authentic
from shared.messages import SendVerifyEmail, SendWelcomeEmail
from shared.settings import ConsumerSettings, SmtpServer
from tests.rows import add_message, add_user, message
from tests.scripted_mail_server import CONTENT, ScriptedMailServer
from tests.waiting import wait_until

KEY = "the signing key of these tests: 32 characters"
LOST = psycopg.OperationalError("the answer was lost")
VERIFY, WELCOME = SendVerifyEmail.task, SendWelcomeEmail.task

Row = dict[str, Any]
Logs = list[Any]


class World:
    """A database with one user, and consumers that work on it."""

    def __init__(self, database_url: str, smtp_port: int) -> None:
        self.settings = ConsumerSettings(
            database_url=database_url,
            redis_url="redis://localhost:1/0",
            smtp_server=SmtpServer("smtp", LOOPBACK, smtp_port),
            smtp_timeout_seconds=5.0,
            mail_from=Address("Signup", addr_spec="signup@example.org"),
            base_url="https://example.org",
            secret_keys=(KEY,),
            verify_email_minutes=60.0,
            run_lease_seconds=30.0,
            backoff_scale=1.0,
            concurrency=1,
        )
        self.connection = connect(database_url, "test")
        self._consumers: list[Processor] = []

    def consumer(self, *, may_give_up: Callable[[], bool] = lambda: False, **settings: Any) -> Processor:
        """Make a consumer, with some settings changed."""
        consumer = Processor(replace(self.settings, **settings), may_give_up=may_give_up)
        self._consumers.append(consumer)
        return consumer

    def process(self, message_id: int, **settings: Any) -> Verdict:
        """Let a new consumer work on the message."""
        return self.consumer(**settings).process(message_id)

    def make_due(self, message_id: int) -> None:
        """As if the wait were over."""
        self.connection.execute("UPDATE outbox SET due_at = now() WHERE id = %s", [message_id])

    def take_back(self, message_id: int) -> None:
        """As a relay does when the lease is over."""
        self.connection.execute(
            "UPDATE outbox SET status = 'pending', generation = generation + 1, due_at = now(),"
            " claim_token = NULL, lease_until = NULL WHERE id = %s AND status = 'running'",
            [message_id],
        )

    def message(self, message_id: int) -> Row:
        return message(self.connection, message_id)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, values).fetchall()

    def breaker(self) -> Row:
        [row] = self.rows("SELECT *, probe_at <= clock_timestamp() AS is_probe_due FROM outbox_breaker")
        return row

    def open_breaker(self, probe_id: int | None = None) -> None:
        """As after one outage, with a probe on its way or none."""
        self.connection.execute(
            "UPDATE outbox_breaker SET opened_at = now(), outages = 1, probe_at = '2100-01-01', probe_id = %s",
            [probe_id],
        )

    def records(self) -> list[Row]:
        return self.rows("SELECT * FROM verify_emails ORDER BY id")

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close()
        self.connection.close()


@contextmanager
def world_of(database_url: str, smtp_port: int) -> Iterator[World]:
    world = World(database_url, smtp_port)
    try:
        add_user(world.connection)
        yield world
    finally:
        world.close()


@pytest.fixture
def world(database_url: str, mailbox: MailCatcher) -> Iterator[World]:
    with world_of(database_url, mailbox.smtp_port) as opened:
        yield opened


@pytest.fixture
def logs() -> Iterator[Logs]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@contextmanager
def running(job: Callable[[], Verdict]) -> Iterator["Future[Verdict]"]:
    """Work in another thread while the test goes on."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(job)


def last_failure(row: Row) -> tuple[int, str, bool]:
    entry = row["failures"][-1]
    assert datetime.fromisoformat(entry["at"]) <= datetime.now(UTC) + timedelta(minutes=1)
    return entry["attempt"], entry["reason"], entry["maybe_accepted"]


def verdicts(logs: Logs) -> list[str]:
    return [line["verdict"] for line in logs if line["event"] == "message"]


# ---- claim and acknowledgement


@pytest.mark.parametrize("status", ["published", "pending"])
def test_a_message_is_sent_and_done(world: World, mailbox: MailCatcher, logs: Logs, status: str) -> None:
    id_ = add_message(world.connection, status=status)

    assert world.process(id_) is Verdict.DONE

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["claim_token"], row["lease_until"]) == ("done", 1, None, None)
    assert row["finished_at"] >= row["claimed_at"]
    assert (row["last_error"], row["failures"]) == (None, [])
    [mail] = mailbox.mails()
    assert mail.recipients == ("alice@example.com",)
    assert mail.message["Message-ID"] == f"<outbox-{id_}@example.org>"
    [line] = logs
    assert {**line, "seconds": 0} == {
        "event": "message",
        "log_level": "info",
        "message_id": id_,
        "verdict": "done",
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

    assert world.process(id_) is Verdict.DONE

    [mail] = mailbox.mails()
    assert ("Full name of alice" in mail.text, mail.links, world.records()) == (True, [], [])


def test_the_claim_stands_while_the_mail_is_sent(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection, status="published")
    mailbox.set_fault("data-hang")
    consumer = world.consumer(smtp_timeout_seconds=1.0)
    with running(lambda: consumer.process(id_)) as verdict:
        wait_until(lambda: world.message(id_)["status"] == "running", 10, "the claim")
        row = world.message(id_)
        sending = world.rows("SELECT lease_until - claimed_at AS lease FROM outbox")

    assert (row["attempt"], row["claim_token"] is None) == (1, False)
    assert abs(sending[0]["lease"] - timedelta(seconds=30)) < timedelta(seconds=1)
    assert verdict.result() is Verdict.FAILED


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

    assert world.process(id_) is Verdict.NOT_CLAIMED

    assert (world.message(id_), mailbox.mails(), verdicts(logs)) == (before, [], ["not_claimed"])


def test_a_finished_message_is_not_sent_again(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection)
    world.process(id_)
    before = world.message(id_)

    assert world.process(id_) is Verdict.NOT_CLAIMED

    assert (world.message(id_), len(mailbox.mails())) == (before, 1)


@pytest.mark.parametrize("unknown", [1_000_000, 2**63 - 1])
def test_a_message_that_does_not_exist_is_not_claimed(world: World, unknown: int) -> None:
    assert world.process(unknown) is Verdict.NOT_CLAIMED


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
        with running(lambda: consumer.process(id_)) as verdict:
            wait_until(lambda: waits_for_a_lock(world), 10, "the claim to wait for the relay's lock")
            relay.execute(ending)

    assert verdict.result() is Verdict.DONE
    assert len(mailbox.mails()) == 1


def waits_for_a_lock(world: World) -> bool:
    waiting = world.rows(
        "SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'outbox-consumer'"
    )
    return bool(waiting)


def test_a_message_that_arrives_twenty_times_at_once_is_sent_once(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection, status="published")
    together = threading.Barrier(20)
    consumers = [world.consumer() for _ in range(20)]

    def process(consumer: Processor) -> Verdict:
        together.wait()
        return consumer.process(id_)

    with ThreadPoolExecutor(20) as pool:
        ended = Counter(pool.map(process, consumers))

    assert ended == {Verdict.DONE: 1, Verdict.NOT_CLAIMED: 19}
    assert (len(mailbox.mails()), len(world.records())) == (1, 1)
    assert world.message(id_)["attempt"] == 1


def test_one_consumer_works_on_many_messages(world: World, mailbox: MailCatcher) -> None:
    ids = [add_message(world.connection) for _ in range(5)]
    consumer = world.consumer()

    ended = [consumer.process(id_) for id_ in ids]

    assert ended == [Verdict.DONE] * 5
    assert [mail.message["Message-ID"] for mail in mailbox.mails()] == [f"<outbox-{id_}@example.org>" for id_ in ids]


# ---- what can never be delivered


@pytest.mark.parametrize(
    ("task", "payload", "reason"),
    [
        ("task:unknown", "{}", "this consumer knows no such task: register it or deploy the version that has it"),
        (VERIFY, "[]", "the payload is malformed: it is not a JSON object"),
        (VERIFY, '"alice"', "the payload is malformed: it is not a JSON object"),
        (VERIFY, "null", "the payload is malformed: it is not a JSON object"),
        (VERIFY, "5", "the payload is malformed: it is not a JSON object"),
        (VERIFY, "{}", "the payload is malformed: {'username': ['Missing data for required field.']}"),
        (VERIFY, '{"username": 5}', "the payload is malformed: {'username': ['Not a valid string.']}"),
        (VERIFY, '{"username": null}', "the payload is malformed: {'username': ['Field may not be null.']}"),
        (VERIFY, '{"username": ["alice"]}', "the payload is malformed: {'username': ['Not a valid string.']}"),
        (VERIFY, '{"username": ""}', "the payload is malformed: {'username': ['Shorter than minimum length 1.']}"),
        (
            VERIFY,
            f'{{"username": "alice", "n": {"9" * 5000}}}',
            "the payload is malformed: a number is too long or it is nested too deep",
        ),
        (
            VERIFY,
            f'{{"username": "alice", "n": {"[" * 2000}{"]" * 2000}}}',
            "the payload is malformed: a number is too long or it is nested too deep",
        ),
        (VERIFY, '{"username": "gone"}', "the user that the payload names does not exist (any more)"),
        (WELCOME, '{"username": "gone"}', "the user that the payload names does not exist (any more)"),
    ],
)
def test_what_cannot_be_delivered_is_dead_at_once(
    world: World, mailbox: MailCatcher, task: str, payload: str, reason: str
) -> None:
    id_ = add_message(world.connection, task)
    world.connection.execute("UPDATE outbox SET payload = %s::jsonb WHERE id = %s", [payload, id_])

    assert world.process(id_) is Verdict.DEAD

    [row] = world.rows("SELECT status, attempt, generation, last_error, failures FROM outbox")
    assert (row["status"], row["attempt"], row["generation"], row["last_error"]) == ("dead", 1, 0, reason)
    assert [last_failure(row)] == [(1, reason, False)]
    assert (len(row["failures"]), mailbox.mails(), world.records()) == (1, [], [])


def test_a_field_of_a_later_version_is_ignored(world: World) -> None:
    id_ = add_message(world.connection, payload={"username": "alice", "locale": "en"})

    assert world.process(id_) is Verdict.DONE


def test_an_address_that_no_mail_can_go_to_is_dead_at_once(world: World) -> None:
    add_user(world.connection, "bob", email="bob")
    id_ = add_message(world.connection, payload={"username": "bob"})

    assert world.process(id_) is Verdict.DEAD

    assert world.message(id_)["last_error"] == "the user's address or name cannot stand in a mail's header"


# ---- failures


def register(monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Preparation, Payload], Mail]) -> str:
    """Register a task of the test's own and return its name."""

    def prepare_all(preparation: Preparation, payloads: Mapping[int, Payload]) -> Prepared:
        return {message_id: prepare(preparation, payload) for message_id, payload in payloads.items()}

    monkeypatch.setitem(TASKS, "task:test", Task("task:test", UserPayload(), prepare_all))
    return "task:test"


def raise_error(_preparation: Preparation, _payload: Payload) -> Mail:
    raise KeyError("alice@example.com")


def break_statement(preparation: Preparation, _payload: Payload) -> Mail:
    preparation.connection.execute("SELECT 'alice@example.com'::integer")
    raise AssertionError


@pytest.mark.parametrize(
    ("prepare", "error"), [(raise_error, "KeyError"), (break_statement, "InvalidTextRepresentation")]
)
def test_a_task_that_raises_fails_with_the_name_of_its_error(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Preparation, Payload], Mail],
    error: str,
) -> None:
    id_ = add_message(world.connection, register(monkeypatch, prepare), status="published")
    before = datetime.now(UTC)

    assert world.process(id_) is Verdict.FAILED

    row = world.message(id_)
    reason = f"{error} while the mail was prepared"
    assert (row["status"], row["attempt"], row["generation"], row["last_error"]) == ("pending", 1, 1, reason)
    assert [last_failure(row)] == [(1, reason, False)]
    assert timedelta(seconds=14) < row["due_at"] - before < timedelta(seconds=60)


def test_what_a_task_wrote_before_it_raised_is_undone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_and_raise(preparation: Preparation, _payload: Payload) -> Mail:
        preparation.connection.execute("UPDATE users SET full_name = 'changed'")
        raise RuntimeError

    id_ = add_message(world.connection, register(monkeypatch, write_and_raise))

    assert world.process(id_) is Verdict.FAILED

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

    assert world.process(id_) is Verdict.FAILED

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

    assert world.process(id_) is Verdict.DEAD

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["last_error"]) == ("dead", 1, reason)
    assert last_failure(row) == (1, reason, False)


def test_it_is_tried_again_until_the_retries_are_spent(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("data-451")
    id_ = add_message(world.connection, max_retries=2)
    consumer = world.consumer()

    ended = []
    for _ in range(4):
        ended.append(consumer.process(id_))
        world.make_due(id_)

    assert ended == [Verdict.FAILED, Verdict.FAILED, Verdict.DEAD, Verdict.NOT_CLAIMED]
    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"]) == ("dead", 3, 2)
    assert [failure["attempt"] for failure in row["failures"]] == [1, 2, 3]


def test_without_retries_the_first_failure_is_the_last(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("data-451")

    assert world.process(add_message(world.connection, max_retries=0)) is Verdict.DEAD


def test_each_wait_is_longer_than_the_one_before(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("data-451")
    id_ = add_message(world.connection, attempt=5)
    before = datetime.now(UTC)

    world.process(id_)

    wait = world.message(id_)["due_at"] - before
    assert timedelta(seconds=5**4 + 15 - 1) < wait < timedelta(seconds=5**4 + 15 + 30 * 6 + 30)


def test_the_scale_shortens_the_wait(world: World, mailbox: MailCatcher) -> None:
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
def test_silence_after_the_dot_is_a_failure_that_may_have_been_accepted(
    world: World, mailbox: MailCatcher, fault: str, mails: int
) -> None:
    mailbox.set_fault(fault)
    id_ = add_message(world.connection, max_retries=0)

    assert world.process(id_, smtp_timeout_seconds=0.3) is Verdict.DEAD

    reason = "no answer after the mail was sent (SMTPServerDisconnected)"
    assert last_failure(world.message(id_)) == (1, reason, True)
    assert len(mailbox.mails()) == mails
    assert world.breaker()["opened_at"] is None


def test_a_lease_that_was_over_before_the_dot_is_a_failure_without_a_mail(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "is_over", lambda _self: True)
    id_ = add_message(world.connection)

    assert world.process(id_) is Verdict.FAILED

    assert last_failure(world.message(id_)) == (1, "the worker stood still: the lease was over", False)
    assert mailbox.mails() == []


def test_a_worker_that_stood_still_before_it_could_send_gives_the_attempt_back_and_blames_nobody(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "begin_until", 0.0)
    id_ = add_message(world.connection)

    assert world.process(id_) is Verdict.PUT_BACK

    row = world.message(id_)
    assert (row["status"], row["attempt"], world.breaker()["opened_at"], mailbox.mails()) == ("pending", 0, None, [])


# ---- outages of the mail server


def test_an_outage_gives_the_attempt_back_and_opens_the_breaker(world: World, logs: Logs) -> None:
    id_ = add_message(world.connection, status="published", attempt=3)
    nobody = SmtpServer("smtp", LOOPBACK, free_port())

    assert world.process(id_, smtp_server=nobody) is Verdict.PUT_BACK

    reason = "cannot connect to the mail server (ConnectionRefusedError)"
    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"], row["last_error"]) == ("pending", 3, 1, reason)
    assert (row["failures"], row["claim_token"], row["lease_until"]) == ([], None, None)
    breaker = world.breaker()
    assert (breaker["outages"], breaker["probe_id"], breaker["last_error"]) == (1, None, reason)
    assert breaker["opened_at"] is not None
    assert [(line["event"], line["log_level"], line.get("error")) for line in logs if line["event"] != "message"] == [
        ("outage", "error", reason)
    ]


def test_a_message_that_the_outage_found_before_its_recipient_is_due_at_once(
    world: World, mailbox: MailCatcher
) -> None:
    mailbox.set_fault("mail-451")
    id_ = add_message(world.connection)

    world.process(id_)

    assert world.message(id_)["due_at"] <= world.rows("SELECT clock_timestamp()")[0]["clock_timestamp"]


def test_a_message_at_which_the_server_went_away_lets_others_be_tried_first(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("drop-before-data")
    id_ = add_message(world.connection)
    before = datetime.now(UTC)

    assert world.process(id_) is Verdict.PUT_BACK

    row = world.message(id_)
    assert timedelta(seconds=59) < row["due_at"] - before < timedelta(seconds=90)
    assert (row["attempt"], world.breaker()["opened_at"] is None) == (0, False)


def test_an_open_breaker_puts_messages_back_unasked(world: World, mailbox: MailCatcher) -> None:
    world.open_breaker(probe_id=1_000_000)
    before = world.breaker()
    id_ = add_message(world.connection, status="published", attempt=2, last_error="an old reason")

    assert world.process(id_) is Verdict.PUT_BACK

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"]) == ("pending", 2, 1)
    assert (row["last_error"], row["failures"]) == ("an old reason", [])
    assert (mailbox.mails(), world.records(), world.breaker()) == ([], [], before)


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [(None, Verdict.DONE), ("rcpt-550", Verdict.DEAD), ("data-451", Verdict.FAILED)],
)
def test_a_probe_that_the_server_answers_closes_the_breaker(
    world: World, mailbox: MailCatcher, logs: Logs, fault: str | None, verdict: Verdict
) -> None:
    mailbox.set_fault(fault)
    id_ = add_message(world.connection)
    world.open_breaker(probe_id=id_)

    assert world.process(id_) is verdict

    breaker = world.breaker()
    assert (breaker["opened_at"], breaker["outages"], breaker["probe_id"]) == (None, 0, None)
    assert [line["message_id"] for line in logs if line["event"] == "mail_server_back"] == [id_]


def test_each_probe_that_finds_the_outage_doubles_the_pause_up_to_half_a_minute(world: World) -> None:
    id_ = add_message(world.connection)
    consumer = world.consumer(smtp_server=SmtpServer("smtp", LOOPBACK, free_port()))

    pauses = []
    for _ in range(8):
        before = datetime.now(UTC)
        assert consumer.process(id_) is Verdict.PUT_BACK
        after = datetime.now(UTC)
        probe_at = world.breaker()["probe_at"]
        pauses.append(((probe_at - after).total_seconds(), (probe_at - before).total_seconds()))
        world.connection.execute("UPDATE outbox_breaker SET probe_id = %s", [id_])

    expected = [1, 2, 4, 8, 16, 30, 30, 30]
    assert [(low, high) for (low, high), pause in zip(pauses, expected, strict=True) if not low <= pause <= high] == []
    assert world.breaker()["outages"] == 8


def test_ten_mails_that_meet_one_outage_count_it_once(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("greet-hang")
    ids = [add_message(world.connection) for _ in range(10)]
    consumers = [world.consumer(smtp_timeout_seconds=1.0) for _ in ids]

    with ThreadPoolExecutor(10) as pool:
        ended = list(pool.map(lambda consumer, id_: consumer.process(id_), consumers, ids))

    assert ended == [Verdict.PUT_BACK] * 10
    assert world.breaker()["outages"] == 1
    assert {world.message(id_)["attempt"] for id_ in ids} == {0}


def test_a_late_outage_leaves_the_probe_on_its_way_alone(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("greet-hang")
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


def test_a_probe_that_ends_without_asking_lets_the_next_one_go(world: World) -> None:
    id_ = add_message(world.connection, payload={"username": "gone"})
    world.open_breaker(probe_id=id_)

    assert world.process(id_) is Verdict.DEAD

    breaker = world.breaker()
    assert (breaker["opened_at"] is None, breaker["probe_id"], breaker["is_probe_due"]) == (False, None, True)


def test_a_probe_that_met_silence_after_the_dot_proves_nothing_and_the_next_one_waits(
    world: World, mailbox: MailCatcher
) -> None:
    mailbox.set_fault("drop-after-accept")
    id_ = add_message(world.connection)
    world.open_breaker(probe_id=id_)

    assert world.process(id_) is Verdict.FAILED

    breaker = world.breaker()
    assert (breaker["opened_at"] is None, breaker["probe_id"], breaker["is_probe_due"]) == (False, None, False)


# ---- repeated attempts


def test_a_second_copy_has_the_same_message_id_and_link_and_a_longer_life(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection)
    mailbox.set_fault("drop-after-accept")
    world.process(id_)
    [first] = world.records()
    world.connection.execute("UPDATE verify_emails SET used_at = now()")
    mailbox.set_fault(None)
    world.make_due(id_)

    assert world.process(id_) is Verdict.DONE

    [second] = world.records()
    copies = mailbox.mails()
    assert len(copies) == 2
    assert len({mail.message["Message-ID"] for mail in copies}) == 1
    assert len({link for mail in copies for link in mail.links}) == 1
    assert (second["id"], second["expires_at"] > first["expires_at"]) == (first["id"], True)
    assert second["used_at"] is not None


def test_an_address_that_changed_in_between_gets_a_link_of_its_own(world: World, mailbox: MailCatcher) -> None:
    id_ = add_message(world.connection)
    mailbox.set_fault("drop-after-accept")
    world.process(id_)
    world.connection.execute("UPDATE verify_emails SET used_at = now()")
    world.connection.execute("UPDATE users SET email = 'new@example.com'")
    mailbox.set_fault(None)
    world.make_due(id_)

    assert world.process(id_) is Verdict.DONE

    [record] = world.records()
    assert (record["email"], record["used_at"]) == ("new@example.com", None)
    assert [mail.recipients for mail in mailbox.mails()] == [("alice@example.com",), ("new@example.com",)]
    assert len({link for mail in mailbox.mails() for link in mail.links}) == 2


# ---- PostgreSQL away


CLAIM = 1
"""A message's transactions are numbered: its claim, the preparation of its mail, its outcome."""


class LosesAnswers(Database):
    """PostgreSQL commits, but for the transactions with these numbers its answer does not arrive."""

    lost: tuple[int, ...] = ()

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self._number = 0

    @contextmanager
    def transaction(self, **limits: int) -> Iterator[DbConnection]:
        self._number += 1
        with super().transaction(**limits) as connection:
            yield connection
        if self._number in self.lost:
            self.close()
            raise LOST


class CommitsLate(Database):
    """The first transaction's connection breaks while PostgreSQL still has the commit before it."""

    commits: list[threading.Thread]
    is_awaited: Callable[[], bool]

    @contextmanager
    def transaction(self, **limits: int) -> Iterator[DbConnection]:
        if self.commits:
            with super().transaction(**limits) as connection:
                yield connection
            return
        broken = connect(self._database_url, "outbox-consumer")
        under_way = transaction(broken)
        under_way.__enter__()
        yield broken

        def commit() -> None:
            wait_until(self.is_awaited, 10, "the second claim to wait for the first")
            under_way.__exit__(None, None, None)
            broken.close()

        self.commits.append(threading.Thread(target=commit))
        self.commits[0].start()
        raise LOST


def test_a_claim_whose_answer_was_lost_is_found_by_its_token(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LosesAnswers, "lost", (CLAIM,))
    monkeypatch.setattr(processing, "Database", LosesAnswers)
    id_ = add_message(world.connection, status="published")

    assert world.process(id_) is Verdict.DONE

    assert (world.message(id_)["attempt"], len(mailbox.mails()), len(world.records())) == (1, 1, 1)


class AwayAfterTheClaim(LosesAnswers):
    """The claim's commit is not answered, and PostgreSQL stays away for longer than the lease."""

    lost = (CLAIM,)
    back_at = math.inf

    @contextmanager
    def transaction(self, **limits: int) -> Iterator[DbConnection]:
        if self._number >= 1 and monotonic() < self.back_at:
            raise LOST
        with super().transaction(**limits) as connection:
            yield connection


def test_an_outage_of_postgresql_longer_than_the_lease_of_a_lost_claim_spends_no_attempt(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwayAfterTheClaim, "back_at", monotonic() + 1.0)
    monkeypatch.setattr(processing, "Database", AwayAfterTheClaim)
    id_ = add_message(world.connection, status="published")

    assert world.process(id_, run_lease_seconds=0.5) is Verdict.PUT_BACK

    row = world.message(id_)
    assert (row["status"], row["attempt"], len(mailbox.mails())) == ("pending", 0, 0)


def test_a_claim_whose_commit_is_still_under_way_is_waited_for(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CommitsLate, "commits", [], raising=False)
    monkeypatch.setattr(CommitsLate, "is_awaited", staticmethod(lambda: waits_for_a_lock(world)), raising=False)
    monkeypatch.setattr(processing, "Database", CommitsLate)
    id_ = add_message(world.connection, status="published")

    assert world.process(id_) is Verdict.DONE

    CommitsLate.commits[0].join()
    assert (world.message(id_)["attempt"], len(mailbox.mails()), len(world.records())) == (1, 1, 1)


def test_a_claim_that_was_rolled_back_is_not_taken_for_anothers(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = add_message(world.connection, status="published")

    class RollsBack(Database):
        """Another consumer takes the message while this one connects anew."""

        @contextmanager
        def transaction(self, **limits: int) -> Iterator[DbConnection]:
            try:
                with super().transaction(**limits) as connection:
                    yield connection
                    if world.message(id_)["status"] == "published":
                        raise LOST
            except psycopg.OperationalError:
                world.connection.execute(
                    "UPDATE outbox SET status = 'running', attempt = 1, claim_token = gen_random_uuid(),"
                    " claimed_at = now(), lease_until = now() + interval '30 s'"
                )
                raise

    monkeypatch.setattr(processing, "Database", RollsBack)

    assert world.process(id_) is Verdict.NOT_CLAIMED

    assert (world.message(id_)["status"], mailbox.mails()) == ("running", [])


def test_an_acknowledgement_whose_answer_was_lost_is_done(
    world: World, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setattr(LosesAnswers, "lost", (CLAIM + 2, CLAIM + 3))
    monkeypatch.setattr(processing, "Database", LosesAnswers)
    id_ = add_message(world.connection)

    assert world.process(id_) is Verdict.DONE

    assert (world.message(id_)["status"], world.message(id_)["attempt"], len(mailbox.mails())) == ("done", 1, 1)
    assert [line["event"] for line in logs] == ["outcome_waits", "message"]


@pytest.mark.parametrize(
    ("fault", "verdict", "left"),
    [
        ("data-451", Verdict.FAILED, ("pending", 1, 1, 1)),
        ("data-554", Verdict.DEAD, ("dead", 1, 0, 1)),
        ("mail-451", Verdict.PUT_BACK, ("pending", 0, 1, 0)),
    ],
)
def test_an_outcome_whose_answer_was_lost_is_written_once_and_told_as_it_is(
    world: World,
    mailbox: MailCatcher,
    monkeypatch: pytest.MonkeyPatch,
    logs: Logs,
    fault: str,
    verdict: Verdict,
    left: tuple[str, int, int, int],
) -> None:
    monkeypatch.setattr(LosesAnswers, "lost", (CLAIM + 2,))
    monkeypatch.setattr(processing, "Database", LosesAnswers)
    mailbox.set_fault(fault)
    id_ = add_message(world.connection)

    assert world.process(id_) is verdict

    row = world.message(id_)
    assert (row["status"], row["attempt"], row["generation"], len(row["failures"])) == left
    assert verdicts(logs) == [verdict.value]


def test_what_a_killed_postgresql_did_not_hear_is_said_again(
    own_postgres: PostgresServer, mailbox: MailCatcher, logs: Logs
) -> None:
    mailbox.set_fault("slow:0.25")
    url = own_postgres.url("outbox")
    with world_of(url, mailbox.smtp_port) as world:
        id_ = add_message(world.connection, status="published")
        consumer = world.consumer()
        with running(lambda: consumer.process(id_)) as verdict:
            wait_until(lambda: bool(world.records()), 10, "the mail to be prepared")
            own_postgres.kill()
            mailbox.wait_for(1)
            wait_until(lambda: "outcome_waits" in [line["event"] for line in logs], 10, "a try to acknowledge")
            own_postgres.start()

        assert verdict.result() is Verdict.DONE
    with connect(url, "test") as connection:
        row = message(connection, id_)
    assert (row["status"], row["attempt"], len(mailbox.mails())) == ("done", 1, 1)


def test_a_claim_waits_for_a_postgresql_that_restarts(own_postgres: PostgresServer, mailbox: MailCatcher) -> None:
    url = own_postgres.url("outbox")
    with connect(url, "test") as connection:
        add_user(connection)
        id_ = add_message(connection, status="published")
    with world_of_killed(own_postgres, mailbox) as consumer, running(lambda: consumer.process(id_)) as verdict:
        own_postgres.start()

    assert verdict.result() is Verdict.DONE


@contextmanager
def world_of_killed(server: PostgresServer, mailbox: MailCatcher) -> Iterator[Processor]:
    """A consumer whose kept connection has just lost its server."""
    settings = World(server.url("outbox"), mailbox.smtp_port)
    consumer = settings.consumer()
    assert consumer.process(1_000_000) is Verdict.NOT_CLAIMED
    server.kill()
    try:
        yield consumer
    finally:
        settings.close()


def test_without_postgresql_the_message_is_left_where_it_is(world: World, logs: Logs) -> None:
    started = monotonic()

    ended = world.process(
        1, database_url=f"postgresql://postgres@{LOOPBACK}:{free_port()}/outbox", run_lease_seconds=0.9
    )

    assert (ended, verdicts(logs)) == (Verdict.DATABASE_AWAY, ["database_away"])
    assert logs[-1]["reason"] == "OperationalError"
    assert monotonic() - started < 5


def test_without_the_tables_the_message_is_left_where_it_is(empty_database_url: str, mailbox: MailCatcher) -> None:
    world = World(empty_database_url, mailbox.smtp_port)

    ended = world.process(1)
    world.close()

    assert ended is Verdict.DATABASE_AWAY


def test_a_worker_that_has_to_leave_gives_an_outcome_up_that_cannot_be_written(
    own_postgres: PostgresServer, mailbox: MailCatcher
) -> None:
    mailbox.set_fault("slow:0.25")
    with world_of(own_postgres.url("outbox"), mailbox.smtp_port) as world:
        id_ = add_message(world.connection)
        has_to_leave = threading.Event()
        consumer = world.consumer(may_give_up=has_to_leave.is_set)
        with running(lambda: consumer.process(id_)) as verdict:
            wait_until(lambda: bool(world.records()), 10, "the mail to be prepared")
            own_postgres.kill()
            mailbox.wait_for(1)
            has_to_leave.set()

        assert verdict.result() is Verdict.DATABASE_AWAY


def test_a_transaction_that_stands_still_is_ended_by_postgresql(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Any] = []

    def ask(preparation: Preparation, _payload: Payload) -> Mail:
        limits.append(preparation.connection.execute("SHOW idle_in_transaction_session_timeout").fetchone())
        raise RuntimeError

    world.process(add_message(world.connection, register(monkeypatch, ask)))

    assert limits == [("5s",)]


# ---- a worker that stood still


@pytest.mark.parametrize("fault", ["", "data-451", "data-554", "drop-after-accept", "drop-before-data"])
def test_a_worker_that_stood_still_changes_nothing_that_another_holds(
    world: World, mailbox: MailCatcher, logs: Logs, fault: str
) -> None:
    mailbox.set_fault(f"slow:0.15 {fault}")
    id_ = add_message(world.connection)
    consumer = world.consumer()
    with running(lambda: consumer.process(id_)) as verdict:
        wait_until(lambda: world.message(id_)["status"] == "running", 10, "the claim")
        world.take_back(id_)
        world.connection.execute(
            "UPDATE outbox SET status = 'running', attempt = 2, claim_token = gen_random_uuid(),"
            " lease_until = now() + interval '30 s' WHERE id = %s",
            [id_],
        )
        taken_over = world.message(id_)

    assert verdict.result() is Verdict.NOT_OURS_ANY_MORE
    assert world.message(id_) == taken_over
    assert verdicts(logs) == ["not_ours_any_more"]


def test_a_worker_that_stood_still_does_not_call_anothers_work_its_own(world: World, mailbox: MailCatcher) -> None:
    mailbox.set_fault("slow:0.2")
    id_ = add_message(world.connection)
    consumer = world.consumer()
    with running(lambda: consumer.process(id_)) as verdict:
        wait_until(lambda: world.message(id_)["status"] == "running", 10, "the claim")
        world.take_back(id_)
        mailbox.set_fault(None)
        assert world.process(id_) is Verdict.DONE
        finished = world.message(id_)

    assert verdict.result() is Verdict.NOT_OURS_ANY_MORE
    assert world.message(id_) == finished


# ---- nothing that must not be read


def break_the_unique_address(preparation: Preparation, _payload: Payload) -> Mail:
    preparation.connection.execute(
        "INSERT INTO users (username, email, full_name, hashed_password)"
        " SELECT 'b', email, full_name, hashed_password FROM users"
    )
    raise AssertionError


@pytest.mark.parametrize(
    "answers",
    [
        {"RCPT": "550 <wonder@land.example>: no such user wonder"},
        {"RCPT": "451 WONDER@LAND.EXAMPLE greylisted"},
        {CONTENT: "554 spam for wonder@land.example"},
        {CONTENT: "250-wonder@land.example"},
        {"MAIL": "550 not for wonder@land.example"},
    ],
)
def test_no_address_of_an_answer_is_kept(database_url: str, logs: Logs, answers: dict[str, str]) -> None:
    with ScriptedMailServer(answers) as server, world_of(database_url, server.port) as world:
        world.connection.execute("UPDATE users SET email = 'wonder@land.example', full_name = 'Wonder Woman'")
        add_message(world.connection)
        world.process(world.rows("SELECT id FROM outbox")[0]["id"], smtp_timeout_seconds=0.3)

        assert_nothing_is_told(world, logs)


@pytest.mark.parametrize(
    ("payload", "prepare"),
    [
        ({"username": ["wonder@land.example"]}, None),
        ({"username": "wonder@land.example"}, None),
        ({"username": "alice"}, break_the_unique_address),
        ({"username": "alice"}, raise_error),
    ],
)
def test_no_address_of_an_error_is_kept(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    logs: Logs,
    payload: Row,
    prepare: Callable[[Preparation, Payload], Mail] | None,
) -> None:
    world.connection.execute("UPDATE users SET email = 'wonder@land.example', full_name = 'Wonder Woman'")
    task = VERIFY if prepare is None else register(monkeypatch, prepare)

    world.process(add_message(world.connection, task, payload))

    assert_nothing_is_told(world, logs)


def test_no_password_and_no_link_is_kept(world: World, mailbox: MailCatcher, logs: Logs) -> None:
    login = SmtpServer("smtp", LOOPBACK, mailbox.smtp_port, "wonder", "land")
    world.process(add_message(world.connection), smtp_server=login)
    nowhere = f"postgresql://wonder:land@{LOOPBACK}:{free_port()}/x"
    world.process(add_message(world.connection), database_url=nowhere, run_lease_seconds=0.3)
    world.connection.execute("UPDATE outbox_breaker SET opened_at = NULL, probe_at = NULL")
    world.process(add_message(world.connection))

    [mail] = mailbox.mails()
    code = mail.links[0].partition("secret_code=")[2]
    assert_nothing_is_told(world, logs, code)


def assert_nothing_is_told(world: World, logs: Logs, *more: str) -> None:
    told = json.dumps([logs, world.rows("SELECT last_error, failures FROM outbox_messages")], default=str).lower()
    breaker = json.dumps(world.breaker(), default=str).lower()

    assert logs
    assert [word for word in ("wonder", "land", KEY, *more) if word.lower() in told + breaker] == []
