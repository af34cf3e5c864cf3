"""Expiry beside other sessions, statement by statement."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from outbox_relay.loop.maintenance import expiry_statements
from shared.database.connections import transaction
from shared.outbox.messages import SendVerifyEmail
from shared.outbox.operations import dead_letters, history
from tests.outbox_relay.loop.expiry.accounts import DAYS, REFUSED, Connection, accounts, add_old_user, expire
from tests.rows import add_message, message


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
