"""Accounts whose address was never verified are deleted, and none that has a mail ahead."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from shared.outbox.operations import dead_letters
from tests.outbox_relay.loop.expiry.accounts import (
    REFUSED,
    Connection,
    accounts,
    add_link,
    add_old_user,
    days_ago,
    expire,
)
from tests.rows import add_message, add_user, message


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
