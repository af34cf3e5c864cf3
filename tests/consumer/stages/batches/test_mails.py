"""Mails that are made together."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest
from psycopg import Connection

from consumer.model.outcomes import RenderFailed
from consumer.model.results import Disposition
from consumer.task import Mail, Payload, Preparation, Prepared, Task, UserPayload
from consumer.tasks.registry import TASKS
from shared.database.connections import LOCK_SECONDS, DbConnection
from tests.consumer.stages.batches.desk import WELCOME, Desk, add_messages, locked
from tests.rows import add_message, add_user, message


def register(monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Preparation, Mapping[int, Payload]], Prepared]) -> str:
    monkeypatch.setitem(TASKS, "task:test", Task("task:test", UserPayload(), prepare))
    return "task:test"


def test_mails_of_several_tasks_are_made_together(desk: Desk, connection: "Connection[Any]") -> None:
    ids = [*add_messages(connection, 3), *add_messages(connection, 2, WELCOME)]

    prepared = desk.preparer.prepare(desk.hold(ids))

    assert {ready.message.claim.id: ready.mail.template for ready in prepared.mails} == {
        **dict.fromkeys(ids[:3], "verify_email"),
        **dict.fromkeys(ids[3:], "welcome_email"),
    }
    links = {ready.mail.values["link"] for ready in prepared.mails if "link" in ready.mail.values}
    assert len(links) == 3


def test_a_message_without_a_user_ends_alone(desk: Desk, connection: "Connection[Any]") -> None:
    good = add_messages(connection, 2)
    bad = add_message(connection, payload={"username": "nobody"})

    prepared = desk.preparer.prepare(desk.hold([*good, bad]))

    assert [ready.message.claim.id for ready in prepared.mails] == good
    [ended] = prepared.results
    assert (ended.message.claim.id, ended.outcome) == (
        bad,
        RenderFailed("the user in the payload does not exist or was deleted", is_permanent=True),
    )


def test_a_task_that_raises_at_one_message_is_called_for_each_alone(
    desk: Desk, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[int]] = []
    poison: list[int] = []

    def prepare(preparation: Preparation, payloads: Mapping[int, Payload]) -> Prepared:
        calls.append(list(payloads))
        preparation.connection.execute("UPDATE users SET full_name = full_name || '!'")
        if poison[0] in payloads:
            raise ZeroDivisionError
        return {id_: Mail("a@example.com", "A", "S", "welcome_email", {"username": "a"}) for id_ in payloads}

    ids = add_messages(connection, 3, register(monkeypatch, prepare))
    poison.append(ids[1])

    prepared = desk.preparer.prepare(desk.hold(ids))

    assert calls == [ids, [ids[0]], [ids[1]], [ids[2]]]
    assert [ready.message.claim.id for ready in prepared.mails] == [ids[0], ids[2]]
    assert [ended.outcome for ended in prepared.results] == [
        RenderFailed("ZeroDivisionError while the mail was prepared")
    ]
    assert connection.execute("SELECT full_name FROM users").fetchone() == ("Full name of alice!!",)


def test_a_task_that_forgets_a_message_has_failed_at_it(
    desk: Desk, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_messages(connection, 1, register(monkeypatch, lambda _preparation, _payloads: {}))

    prepared = desk.preparer.prepare(desk.hold(ids))

    assert [ended.outcome for ended in prepared.results] == [RenderFailed("the task returned no mail for this message")]


@pytest.mark.usefixtures("impatient")
def test_a_mail_whose_user_stays_locked_is_put_back_for_a_while(
    desk: Desk, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    begin = desk.database.transaction

    def note(**limits: float) -> AbstractContextManager[DbConnection]:
        waits.append(limits["lock_seconds"])
        return begin(**limits)

    add_user(connection, "bob")
    good, bad = add_message(connection), add_message(connection, payload={"username": "bob"})

    with locked(desk.url, "UPDATE users SET username = 'robert' WHERE username = %s", "bob"):
        held = desk.hold([good, bad])
        monkeypatch.setattr(desk.database, "transaction", note)
        prepared = desk.preparer.prepare(held)
        monkeypatch.undo()
    [ended] = prepared.results
    verdicts = desk.recorder.record([ended])

    assert [ready.message.claim.id for ready in prepared.mails] == [good]
    # The first wait is the whole batch's. Each message that is locked takes a short one more of its neighbours' time.
    assert waits == [LOCK_SECONDS, 1, 1]
    assert [each.disposition for each in verdicts] == [Disposition.RELEASED]
    row = message(connection, bad)
    is_late = connection.execute("SELECT due_at > now() + interval '30 s' FROM outbox WHERE id = %s", [bad]).fetchone()
    assert (row["status"], row["attempt"], is_late) == ("pending", 0, (True,))
