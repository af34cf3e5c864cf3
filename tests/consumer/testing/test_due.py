"""Everything that is due, run inline against a database."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from standardwebhooks.webhooks import Webhook

from consumer.task import RetryAfter, Unavailable, Undeliverable
from shared.database.connections import DbConnection
from shared.outbox import Message
from shared.outbox.messages import SendVerifyEmail, SendWelcomeEmail
from shared.testing import CapturedMail, DueRun, run_due
from shared.webhooks import endpoints
from shared.webhooks.signing import new_secret
from tests.consumer.testing.odd_tasks import Handled, Prepared, Unknown
from tests.rows import add_message, add_user, message

TASKS = ("tests.consumer.testing.odd_tasks", "consumer.tasks")


def add(connection: DbConnection, appended: Message, queue: str = "default", **columns: Any) -> int:
    return add_message(connection, appended.task, appended.payload(), queue, **columns)


def statuses(run: DueRun) -> dict[int, str]:
    return {each.id: each.status for each in run.messages}


def test_each_message_ends_as_with_a_worker(connection: DbConnection, database_url: str) -> None:
    works = {
        "nothing": "done",
        "COMMIT": "dead",
        "discard": "discarded",
        "forget": "pending",
        "mail": "pending",
    }
    expected = {add(connection, Prepared(work)): status for work, status in works.items()}
    works = {"nothing": "done", "leak": "pending", "retry": "pending", "refuse": "dead", "fail": "pending"}
    expected |= {add(connection, Handled(work)): status for work, status in works.items()}
    expected |= {add(connection, Unknown()): "pending"}
    later = add(connection, Handled("nothing"), due_at="2100-01-01T00:00:00Z")

    run = run_due(database_url, TASKS)

    assert statuses(run) == expected
    reasons = {each.payload.get("work"): each.reason for each in run.messages}
    assert (reasons["retry"], reasons["refuse"]) == ("later", "never")
    assert reasons["mail"] == "there is no template missing.txt"
    assert message(connection, later)["attempt"] == 0
    assert run_due(database_url, TASKS).messages == []


def test_what_is_appended_meanwhile_is_run_too(connection: DbConnection, database_url: str) -> None:
    add(connection, Prepared("append"))

    run = run_due(database_url, TASKS)

    assert [(each.task, each.status) for each in run.messages] == [("odd:prepared", "done"), ("odd:handled", "done")]


def test_mails_are_kept_as_they_were_sent(connection: DbConnection, database_url: str) -> None:
    add_user(connection)
    welcome = add(connection, SendWelcomeEmail("alice"))
    verify = add(connection, SendVerifyEmail("alice"), queue="critical")

    run = run_due(database_url, mail_from="Shop <shop@shop.example>", base_url="https://shop.example")

    assert [each.id for each in run.messages] == [verify, welcome]
    first = run.mails[0]
    assert (first.sender, first.recipient) == ("shop@shop.example", "alice@example.com")
    assert "https://shop.example/" in first.text
    assert "https://shop.example/" in first.html
    uid = message(connection, verify)["uid"]
    assert (first.subject, first.message["Message-ID"]) == ("Verify your email address", f"<{uid}@shop.example>")


@pytest.mark.parametrize(
    ("error", "status", "reason", "attempt"),
    [
        (Unavailable("down"), "pending", "down", 0),
        (RetryAfter(60, "busy"), "pending", "busy", 1),
        (Undeliverable("no such mailbox"), "dead", "no such mailbox", 1),
        (KeyError("x"), "pending", "KeyError while the mail was sent", 1),
    ],
)
def test_a_mail_that_cannot_be_sent_is_recorded(
    connection: DbConnection, database_url: str, error: Exception, status: str, reason: str, attempt: int
) -> None:
    add_user(connection)
    id_ = add(connection, SendWelcomeEmail("alice"))

    run = run_due(database_url, send=raising(error))

    [processed] = run.messages
    assert (processed.status, processed.reason, run.mails) == (status, reason, [])
    assert message(connection, id_)["attempt"] == attempt


def raising(error: Exception) -> Callable[[CapturedMail], object]:
    def send(_mail: CapturedMail) -> None:
        raise error

    return send


def test_what_a_person_has_paused_is_not_begun(connection: DbConnection, database_url: str) -> None:
    connection.execute("INSERT INTO outbox_destinations (name, paused_at) VALUES ('mail', now())")
    add_user(connection)
    id_ = add(connection, SendWelcomeEmail("alice"))

    run = run_due(database_url)

    assert (statuses(run), run.mails, message(connection, id_)["attempt"]) == ({id_: "pending"}, [], 0)


def test_a_database_that_cannot_be_used_is_an_error() -> None:
    with pytest.raises(psycopg.OperationalError):
        run_due("postgresql://127.0.0.1:1/none")


def test_webhooks_are_signed_and_kept(database_url: str, connection: DbConnection) -> None:
    secret = new_secret()
    endpoint = endpoints.add(connection, "shop", "https://shop.example.com/hooks?a=b", ["user.signed_up"], secret)
    assert endpoint is not None
    endpoints.append_test(connection, endpoint, '{"type": "webhook.test"}')

    run = run_due(database_url)

    [webhook] = run.webhooks
    assert (webhook.host, webhook.path) == ("shop.example.com", "/hooks?a=b")
    assert Webhook(secret).verify(webhook.body, dict(webhook.headers)) == {"type": "webhook.test"}
    assert [each.status for each in run.messages] == ["done"]
