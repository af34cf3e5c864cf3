"""Accounts whose address was never verified are deleted, and none that has a mail ahead."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import structlog
from psycopg.types.json import Jsonb

from embedded.mail.catcher import MailCatcher
from embedded.programs.ports import LOOPBACK
from outbox_relay.loop.maintenance import expiry_statements
from outbox_relay.loop.maintenance.expiry import AccountExpiry, TrustedClock
from outbox_relay.loop.pacing import Pacing
from shared.database.connections import connect, transaction
from shared.outbox.messages import SendVerifyEmail
from shared.outbox.operations import dead_letters, history
from shared.settings.smtp_server import SmtpServer
from tests.consumer.stages.processing.world import World, world_of
from tests.rows import add_message, add_user, message
from tests.servers.roles import limited_role, with_role
from tests.servers.scripted_mail_server import ScriptedMailServer
from tests.settings.relay import open_relay, relay_settings

Connection = psycopg.Connection[tuple[Any, ...]]

DAYS = 7
REFUSED = [{"at": "2026-01-01T00:00:00Z", "attempt": 1, "reason": "refused", "about_recipient": True}]


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def add_old_user(connection: Connection, name: str = "alice", **columns: Any) -> str:
    return add_user(connection, name, **{"created_at": days_ago(9), **columns})


def add_link(connection: Connection, name: str, message_id: int, ended: datetime) -> None:
    connection.execute(
        "INSERT INTO verify_emails (username, email, message_id, expires_at) VALUES (%s, 'a@example.com', %s, %s)",
        [name, message_id, ended],
    )


def expire(connection: Connection, days: float = DAYS) -> int:
    """Expire accounts as a relay does that looks for the first time."""
    return AccountExpiry(days).step(connection).deleted


def accounts(connection: Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT username FROM users").fetchall()}


def test_an_account_goes_after_its_days_with_its_links(connection: Connection) -> None:
    add_old_user(connection)
    add_link(connection, "alice", 1, days_ago(8))
    add_old_user(connection, "young", created_at=days_ago(6.9))

    assert (expire(connection), accounts(connection)) == (1, {"young"})
    assert connection.execute("SELECT count(*) FROM verify_emails").fetchone() == (0,)


@pytest.mark.parametrize(
    "columns",
    [
        {"is_email_verified": True},
        {"created_at": days_ago(6)},
        {"email_set_at": days_ago(6)},
        {"created_at": "infinity"},
    ],
    ids=["verified", "young", "corrected", "never"],
)
def test_an_account_stays_because_of_its_row(connection: Connection, columns: dict[str, Any]) -> None:
    add_old_user(connection, **columns)

    assert (expire(connection), accounts(connection)) == (0, {"alice"})


def test_the_days_are_counted_from_the_end_of_the_newest_link(connection: Connection) -> None:
    add_old_user(connection)
    for message_id, ended in ((1, days_ago(8)), (2, days_ago(6))):
        add_link(connection, "alice", message_id, ended)

    assert expire(connection) == 0


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "pending"},
        {"status": "pending", "due_at": "infinity"},
        {"status": "published"},
        {"status": "running"},
        {"status": "dead"},
        {"status": "dead", "failures": Jsonb([*REFUSED, {"attempt": 2, "reason": "its last reason is another one"}])},
        {"status": "pending", "failures": Jsonb(REFUSED)},
    ],
    ids=["pending", "never-due", "published", "running", "dead", "dead-for-another-reason", "retried"],
)
def test_no_account_goes_while_a_mail_is_ahead(connection: Connection, columns: dict[str, Any]) -> None:
    """An outage of eight days, a mail that waits for a limit, and a dead letter that nobody retried are these."""
    add_old_user(connection)
    add_message(connection, **columns)

    assert (expire(connection), accounts(connection)) == (0, {"alice"})


def test_other_mails_of_an_account_keep_it_as_well(connection: Connection) -> None:
    add_old_user(connection)
    add_message(connection, "task:send_password_changed_email")

    assert expire(connection) == 0


@pytest.mark.parametrize("what", ["a mail", "a link"])
def test_an_account_is_kept_by_what_comes_to_its_address_for_another(connection: Connection, what: str) -> None:
    """Any link of the address serves it, and one mail of an address may wait for all."""
    add_old_user(connection)
    add_user(connection, "stranger", email="Alice@Example.com")
    add_old_user(connection, "verified", email="alice@example.com", is_email_verified=True)
    if what == "a mail":
        add_message(connection, payload={"username": "stranger"})
    else:
        add_link(connection, "stranger", 1, days_ago(6))
    add_message(connection, payload={"username": "verified"})

    assert expire(connection) == 0

    connection.execute("DELETE FROM users WHERE username = 'stranger'; DELETE FROM outbox")
    assert expire(connection) == 1


def test_mails_of_others_keep_nobody(connection: Connection) -> None:
    long_name = "a" * 70
    for name in ("alice", long_name):
        add_old_user(connection, name)
    add_message(connection, payload={"username": "alice2"})
    add_message(connection, payload={"username": long_name + "b"})
    add_message(connection, payload=[])
    add_message(connection, payload={"username": None})
    add_message(connection, payload={"username": "x" * 100_000})

    assert (expire(connection), accounts(connection)) == (2, set())


def test_a_foreign_account_with_a_long_name_is_kept_by_its_mail(connection: Connection) -> None:
    name = add_old_user(connection, "\u00e4" * 3000, email="long@example.com")
    add_message(connection, payload={"username": name})

    assert expire(connection) == 0


def test_a_dead_letter_because_of_its_recipient_goes_with_its_account(connection: Connection) -> None:
    add_old_user(connection)
    ids = [add_message(connection, status="dead", failures=Jsonb(REFUSED)) for _ in range(2)]

    assert expire(connection) == 1

    rows = [message(connection, id_) for id_ in ids]
    assert {(row["status"], row["last_error"]) for row in rows} == {
        ("discarded", "discarded: its account was not verified in time")
    }
    assert rows[0]["failures"] == REFUSED
    assert not dead_letters.retry(connection, ids[0])


def test_without_days_an_account_goes_as_soon_as_its_link_has_ended(connection: Connection) -> None:
    add_old_user(connection, created_at=days_ago(0.001))
    add_old_user(connection, "bob", created_at=days_ago(0.001))
    add_link(connection, "bob", 1, datetime.now(UTC) + timedelta(minutes=1))

    assert (expire(connection, days=0), accounts(connection)) == (1, {"bob"})


# ---- beside others, statement by statement


@pytest.fixture
def others(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "others") as connection:
        connection.execute("SET lock_timeout = '100 ms'")
        yield connection


def test_an_account_that_another_session_has_locked_is_passed_over(connection: Connection, others: Connection) -> None:
    add_old_user(connection)
    others.execute("BEGIN")
    others.execute("SELECT FROM users WHERE username = 'alice' FOR NO KEY UPDATE")

    assert expire(connection) == 0

    others.execute("ROLLBACK")
    assert expire(connection) == 1


def test_a_mail_that_came_before_the_lock_keeps_its_account(
    connection: Connection, others: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed after the first statement began: only a snapshot from after the lock shows it."""
    add_old_user(connection)
    lock_accounts = expiry_statements.lock_accounts

    def beside_a_resend(*arguments: Any) -> object:
        locked = lock_accounts(*arguments)
        add_message(others)
        return locked

    monkeypatch.setattr(expiry_statements, "lock_accounts", beside_a_resend)

    assert (expire(connection), accounts(connection)) == (0, {"alice"})


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET is_email_verified = true",
        "UPDATE users SET email_set_at = now()",
        "SELECT FROM users FOR KEY SHARE",
    ],
    ids=["verify", "correct", "prepare"],
)
def test_nobody_touches_an_account_that_is_being_deleted(
    connection: Connection, others: Connection, change: str
) -> None:
    add_old_user(connection)
    with transaction(connection):
        locked = expiry_statements.lock_accounts(connection, DAYS, 10, expiry_statements.FIRST)
        assert locked.usernames == ["alice"]
        with pytest.raises(psycopg.errors.LockNotAvailable):
            others.execute(change.encode())


def test_nobody_retries_a_dead_letter_whose_account_is_being_deleted(
    connection: Connection, others: Connection
) -> None:
    add_old_user(connection)
    id_ = add_message(connection, status="dead", failures=Jsonb(REFUSED))
    with transaction(connection):
        locked = expiry_statements.lock_accounts(connection, DAYS, 10, expiry_statements.FIRST)
        refused = expiry_statements.lock_refused_mails(connection, locked.usernames)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            dead_letters.retry(others, id_)
        assert expiry_statements.delete_accounts(connection, DAYS, locked.usernames, refused) == 1


def test_nothing_is_replayed_for_an_account_that_is_being_deleted(connection: Connection, others: Connection) -> None:
    add_old_user(connection)
    id_ = add_message(connection)
    assert dead_letters.discard(connection, id_, "a test")
    day = timedelta(days=1)
    now = datetime.now(UTC)
    with transaction(connection):
        assert expiry_statements.lock_accounts(connection, DAYS, 10, expiry_statements.FIRST).usernames == ["alice"]
        with pytest.raises(psycopg.errors.LockNotAvailable):
            history.replay(others, history.Range(SendVerifyEmail.task, now - day, now + day, ("discarded",)))

    assert history.replay(others, history.Range(SendVerifyEmail.task, now - day, now + day, ("discarded",))) == 1


def test_a_dead_letter_that_is_being_retried_keeps_its_account(connection: Connection, others: Connection) -> None:
    add_old_user(connection)
    id_ = add_message(connection, status="dead", failures=Jsonb(REFUSED))
    others.execute("BEGIN")
    assert dead_letters.retry(others, id_)

    assert expire(connection) == 0

    others.execute("COMMIT")
    assert (expire(connection), message(connection, id_)["status"]) == (0, "pending")


def test_two_relays_expire_side_by_side(connection: Connection, others: Connection) -> None:
    for number in range(3):
        add_old_user(connection, f"user_{number}")
    with transaction(connection):
        locked = expiry_statements.lock_accounts(connection, DAYS, 2, expiry_statements.FIRST)
        assert expire(others) == 1
        assert expiry_statements.delete_accounts(connection, DAYS, locked.usernames, []) == 2
    assert accounts(connection) == set()


# ---- clocks


def clock_of(database: float, monotonic: float, wall: float | None = None) -> tuple[float, float, float]:
    """The three clocks' seconds at one step."""
    return database, monotonic, database if wall is None else wall


@pytest.mark.parametrize(
    ("steps", "trusted"),
    [
        ([clock_of(1000, 0), clock_of(1060, 60)], [True, True]),
        ([clock_of(1000, 0), clock_of(865_060, 60), clock_of(865_120, 120)], [True, False, False]),
        ([clock_of(1000, 0), clock_of(865_060, 60), clock_of(868_800, 3800)], [True, False, True]),
        ([clock_of(1000, 0), clock_of(865_060, 60), clock_of(1120, 120), clock_of(4600, 3600)], [True] + [False] * 3),
        ([clock_of(865_000, 0, 1000), clock_of(1060, 60)], [False, False]),
        ([clock_of(1000, 0, 2000)], [True]),
    ],
    ids=["steady", "jumps-ahead", "an-hour-later", "jumps-back", "differs", "a-little"],
)
def test_a_clock_that_jumps_is_not_believed_for_an_hour(
    steps: list[tuple[float, float, float]], trusted: list[bool]
) -> None:
    now = steps[0]
    clock = TrustedClock(monotonic=lambda: now[1], wall=lambda: now[2])

    for now, is_trusted in zip(steps, trusted, strict=True):
        assert clock.trusts(now[0]) is is_trusted


def test_no_account_goes_while_the_clock_is_not_believed(connection: Connection) -> None:
    add_old_user(connection)

    with structlog.testing.capture_logs() as logs:
        step = AccountExpiry(DAYS, TrustedClock(wall=lambda: days_ago(10).timestamp())).step(connection)

    assert (step.deleted, accounts(connection)) == (0, {"alice"})
    assert [line["event"] for line in logs] == ["clock.disagreed"]


# ---- step by step


def test_a_run_skips_accounts_that_have_to_stay(connection: Connection) -> None:
    created_at = days_ago(20)  # of all at once: their names show where a step ended
    for number in range(3):
        name = add_old_user(connection, f"stays_{number}", created_at=created_at)
        add_message(connection, payload={"username": name}, status="dead")
    add_old_user(connection, "unwanted", created_at=created_at)
    add_old_user(connection, "young", created_at=days_ago(1))
    run = AccountExpiry(DAYS, accounts_at_once=2)

    steps = [run.step(connection) for _ in range(3)]

    assert [(step.deleted, step.is_partial) for step in steps] == [(0, True), (1, True), (0, False)]
    connection.execute("DELETE FROM outbox")
    assert [run.step(connection).deleted for _ in range(2)] == [2, 1]


def test_a_relay_expires_accounts_by_itself(database_url: str, redis_url: str, connection: Connection) -> None:
    add_old_user(connection)
    add_old_user(connection, "bob", created_at=days_ago(2))

    with structlog.testing.capture_logs() as logs:
        run_once(database_url, redis_url, unverified_days=1.5)

    assert accounts(connection) == set()
    assert [line["accounts"] for line in logs if line["event"] == "accounts.expired"] == [2]


def run_once(database_url: str, redis_url: str, **settings: Any) -> int:
    with open_relay(relay_settings(database_url, redis_url, **settings)) as relay:
        return relay.run_once().published


def test_a_role_of_the_version_before_publishes_and_says_what_it_lacks(
    database_url: str, redis_url: str, connection: Connection
) -> None:
    add_old_user(connection)
    id_ = add_message(connection)
    grants = {
        "outbox": ("SELECT", "UPDATE"),
        "outbox_finished": ("SELECT", "UPDATE", "DELETE"),
        "outbox_breaker": ("SELECT", "UPDATE"),
        "outbox_relays": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    }
    with limited_role(connection, grants) as role, structlog.testing.capture_logs() as logs:
        assert run_once(with_role(database_url, role), redis_url) == 1
    assert message(connection, id_)["status"] == "published"
    assert [line["error"] for line in logs if line["event"] == "accounts.not_expired"] == ["InsufficientPrivilege"]


def test_a_link_that_a_human_holds_locked_holds_up_neither_messages_nor_other_accounts(
    database_url: str, redis_url: str, connection: Connection, others: Connection
) -> None:
    pacing = Pacing(expire_seconds=0, accounts_at_once=1)
    add_old_user(connection, created_at=days_ago(10))
    add_old_user(connection, "bob")
    add_link(connection, "alice", 1, days_ago(8))
    add_message(connection, "t", payload={})
    others.execute("BEGIN")
    others.execute("SELECT FROM verify_emails FOR UPDATE")

    with (
        open_relay(relay_settings(database_url, redis_url), pacing) as running,
        structlog.testing.capture_logs() as logs,
    ):
        assert [running.run_once().published for _ in range(2)] == [1, 0]

    assert accounts(connection) == {"alice"}
    assert [line["error"] for line in logs if line["event"] == "accounts.not_expired"] == ["LockNotAvailable"]


# ---- what the worker notes


@pytest.fixture
def world(database_url: str, mailbox: MailCatcher) -> Iterator[World]:
    with world_of(database_url, mailbox.smtp_port) as opened:
        opened.connection.execute("UPDATE users SET created_at = %s", [days_ago(9)])
        yield opened


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        ("550 5.1.1 no such user", False),
        ("556 5.1.10 this domain takes no mail", False),
        ("550 no", True),
        ("550 5.5.0 no", True),
        ("554 5.7.1 relay access denied", True),
        ("450 4.1.1 not yet", True),
        ("250 OK", True),
    ],
)
def test_only_a_recipient_that_does_not_exist_lets_its_account_go(world: World, answer: str, *, is_kept: bool) -> None:
    id_ = add_message(world.connection, status="published", attempt=10)
    with ScriptedMailServer({"RCPT": answer}) as server:
        world.process(id_, smtp_server=SmtpServer("smtp", LOOPBACK, server.port))
    world.connection.execute("UPDATE verify_emails SET expires_at = %s", [days_ago(7.5 if "250" not in answer else 6)])

    assert (expire(world.connection), accounts(world.connection)) == ((0, {"alice"}) if is_kept else (1, set()))
