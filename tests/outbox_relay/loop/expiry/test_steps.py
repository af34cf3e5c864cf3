"""Expiry in steps, as a relay runs it beside publishing."""

from typing import Any

import structlog

from outbox_relay.loop.maintenance.expiry import AccountExpiry
from outbox_relay.loop.pacing import Pacing
from tests.outbox_relay.loop.expiry.accounts import DAYS, Connection, accounts, add_link, add_old_user, days_ago
from tests.rows import add_message, message
from tests.servers.roles import limited_role, with_role
from tests.settings.relay import open_relay, relay_settings


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
        "outbox_destinations": ("SELECT", "UPDATE"),
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
