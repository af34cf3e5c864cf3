"""Preparing the mails of many messages at once."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest
from psycopg import Connection

from consumer.model.message import PreparedMessage
from consumer.model.outcomes import RenderFailed
from consumer.model.results import Disposition, StepResult
from consumer.stages.database import TaskConnection
from consumer.task import Context, Mail, Task
from consumer.task.results import Prepared
from shared.database.connections import LOCK_SECONDS
from tests.consumer.stages.batches.steps import WELCOME, Steps, add_messages, locked
from tests.consumer.stages.processing.world import MailTest
from tests.rows import add_message, add_user, message


def register(steps: Steps, prepare: Callable[[Context, Mapping[int, MailTest]], Mapping[int, Prepared]]) -> str:
    steps.use(Task(MailTest, prepare=prepare))
    return MailTest.task


def mails(step: StepResult) -> list[PreparedMessage]:
    return [each for each in step.work if isinstance(each, PreparedMessage)]


def test_mails_of_several_tasks_are_prepared_together(steps: Steps, connection: "Connection[Any]") -> None:
    ids = [*add_messages(connection, 3), *add_messages(connection, 2, WELCOME)]

    prepared = steps.preparer.prepare(steps.claimed(ids))

    contents = {each.message.claim.id: each.content for each in mails(prepared) if isinstance(each.content, Mail)}
    assert {id_: content.template for id_, content in contents.items()} == {
        **dict.fromkeys(ids[:3], "verify_email"),
        **dict.fromkeys(ids[3:], "welcome_email"),
    }
    links = {content.values["link"] for content in contents.values() if "link" in content.values}
    assert len(links) == 3


def test_a_message_without_a_user_does_not_affect_the_others(steps: Steps, connection: "Connection[Any]") -> None:
    good = add_messages(connection, 2)
    bad = add_message(connection, payload={"username": "nobody"})

    prepared = steps.preparer.prepare(steps.claimed([*good, bad]))

    assert [each.message.claim.id for each in mails(prepared)] == good
    [result] = prepared.results
    assert (result.message.claim.id, result.outcome) == (
        bad,
        RenderFailed("the user in the payload does not exist or was deleted", is_permanent=True),
    )


def test_a_task_that_raises_is_called_again_for_each_message_alone(steps: Steps, connection: "Connection[Any]") -> None:
    calls: list[list[int]] = []
    poison: list[int] = []

    def prepare(context: Context, messages: Mapping[int, MailTest]) -> dict[int, Mail]:
        calls.append(list(messages))
        context.connection.execute("UPDATE users SET full_name = full_name || '!'")
        if poison[0] in messages:
            raise ZeroDivisionError
        return {id_: Mail("a@example.com", "A", "S", "welcome_email", {"username": "a"}) for id_ in messages}

    ids = add_messages(connection, 3, register(steps, prepare))
    poison.append(ids[1])

    prepared = steps.preparer.prepare(steps.claimed(ids))

    assert calls == [ids, [ids[0]], [ids[1]], [ids[2]]]
    assert [each.message.claim.id for each in mails(prepared)] == [ids[0], ids[2]]
    assert [each.outcome for each in prepared.results] == [
        RenderFailed("ZeroDivisionError while the message was prepared")
    ]
    assert connection.execute("SELECT full_name FROM users").fetchone() == ("Full name of alice!!",)


def test_a_message_for_which_the_task_returns_nothing_fails(steps: Steps, connection: "Connection[Any]") -> None:
    ids = add_messages(connection, 1, register(steps, lambda _context, _messages: {}))

    prepared = steps.preparer.prepare(steps.claimed(ids))

    assert [each.outcome for each in prepared.results] == [RenderFailed("prepare returned nothing for this message")]


def test_a_mail_whose_user_is_locked_is_released_with_a_delay(
    quick_steps: Steps, connection: "Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    begin = quick_steps.database.transaction

    def note(**limits: Any) -> AbstractContextManager[TaskConnection]:
        waits.append(limits["lock_seconds"])
        return begin(**limits)

    add_user(connection, "bob")
    good, bad = add_message(connection), add_message(connection, payload={"username": "bob"})

    with locked(quick_steps.url, "UPDATE users SET username = 'robert' WHERE username = %s", "bob"):
        claimed = quick_steps.claimed([good, bad])
        monkeypatch.setattr(quick_steps.database, "transaction", note)
        prepared = quick_steps.preparer.prepare(claimed)
        monkeypatch.undo()
    [result] = prepared.results
    dispositions = quick_steps.recorder.record([result])

    assert [each.message.claim.id for each in mails(prepared)] == [good]
    # The first wait is for the whole batch. Each locked message then delays the others by one more short wait.
    assert waits == [LOCK_SECONDS, 1, 1]
    assert [each.disposition for each in dispositions] == [Disposition.RELEASED]
    row = message(connection, bad)
    is_late = connection.execute("SELECT due_at > now() + interval '30 s' FROM outbox WHERE id = %s", [bad]).fetchone()
    assert (row["status"], row["attempt"], is_late) == ("pending", 0, (True,))
