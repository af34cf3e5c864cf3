"""Handlers, called in one thread as RQ's stock class does: what each way to end makes of the message."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import psycopg
import pytest

from consumer.model.lease import Lease
from consumer.model.message import MessagesToPrepare, MessageToHandle
from consumer.model.outcomes import Released
from consumer.model.results import Disposition
from consumer.stages.database import Database, TaskConnection
from consumer.task.registry import load_tasks
from shared.outbox.messages import LOCAL
from tests.consumer import handled_tasks
from tests.consumer.handled_tasks import Act, Write
from tests.consumer.stages.processing.world import Logs, World
from tests.rows import add_message

FAILED, DEAD, DONE = Disposition.FAILED, Disposition.DEAD, Disposition.DELIVERED
RELEASED, DISCARDED = Disposition.RELEASED, Disposition.DISCARDED


@pytest.fixture
def tasks(world: World) -> World:
    world.tasks = load_tasks([handled_tasks.MODULE, "consumer.tasks"])
    world.connection.execute(handled_tasks.EFFECTS)
    return world


def effects(world: World) -> list[str]:
    return [row["message"] for row in world.rows("SELECT message FROM effects ORDER BY message")]


@pytest.mark.parametrize(
    ("do", "disposition", "reason"),
    [
        ("return", DONE, None),
        ("return a value", DONE, None),
        ("return Done()", DONE, None),
        ("return a coroutine", FAILED, "the handler returned a coroutine or a generator, which nobody runs"),
        ("return an error", FAILED, "the handler returned KeyError, which only `prepare` may return"),
        ("return a dead letter", DEAD, "no use"),
        ("return discarded", DISCARDED, "discarded: not needed"),
        ("raise", FAILED, "KeyError while the message was handled"),
        ("raise SystemExit", FAILED, "SystemExit while the message was handled"),
        ("sys.exit", FAILED, "SystemExit while the message was handled"),
        ("raise KeyboardInterrupt", FAILED, "KeyboardInterrupt while the message was handled"),
        ("raise Undeliverable", DEAD, "no use"),
        ("raise RetryAfter", FAILED, "the task asked for a retry"),
        ("raise Unavailable", RELEASED, "closed for lunch"),
        ("leak", FAILED, "the handler left a transaction open"),
        ("append what is refused", FAILED, "ValueError while the message was handled"),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_each_end_of_a_handler_is_defined(
    tasks: World, logs: Logs, do: str, disposition: Disposition, reason: str | None
) -> None:
    id_ = add_message(tasks.connection, Act.task, {"do": do}, status="published")

    assert tasks.process(id_) is disposition

    row = tasks.message(id_)
    assert (row["last_error"] or "").startswith(reason or "")
    assert (reason is None) is (row["last_error"] is None)
    assert row["attempt"] == (0 if disposition is RELEASED else 1)
    assert effects(tasks) == [do]
    assert "someone" not in str((logs, row))


def test_a_handler_asks_for_a_delay(tasks: World) -> None:
    id_ = add_message(tasks.connection, Act.task, {"do": "raise RetryAfter"})

    tasks.process(id_)

    delay = tasks.message(id_)["due_at"] - datetime.now(UTC)
    assert timedelta(minutes=59) < delay < timedelta(minutes=61)


def test_the_idempotency_key_is_the_same_at_each_attempt(tasks: World) -> None:
    id_ = add_message(tasks.connection, Act.task, {"do": "raise"})
    for _ in range(2):
        tasks.process(id_)
        tasks.make_due(id_)

    rows = tasks.rows("SELECT attempt, key FROM effects ORDER BY attempt")

    assert [(row["attempt"], row["key"]) for row in rows] == [
        (attempt, str(tasks.message(id_)["uid"])) for attempt in (1, 2)
    ]


def test_what_a_handler_appends_exists_if_its_attempt_counts(tasks: World) -> None:
    add_message(tasks.connection, Act.task, {"do": "append"})
    add_message(tasks.connection, Act.task, {"do": "append and fail"})

    assert [tasks.process(1), tasks.process(2)] == [DONE, FAILED]

    [row] = tasks.rows("SELECT task, payload, queue, destination, status FROM outbox WHERE id > 2")
    assert (row["task"], row["payload"], row["destination"], row["status"]) == (
        Write.task,
        {"text": "appended"},
        LOCAL,
        "pending",
    )


def test_what_is_appended_by_a_claim_that_was_lost_does_not_exist(tasks: World) -> None:
    id_ = add_message(tasks.connection, Act.task, {"do": "append"}, status="published")
    consumer = tasks.consumer()
    [claimed] = consumer._claimer.claim({id_: None}).claimed  # noqa: SLF001
    [work] = consumer._preparer.prepare([claimed]).work  # noqa: SLF001
    [result] = consumer._place.carry_out(work).results  # noqa: SLF001
    tasks.take_back(id_)

    [recorded] = consumer._recorder.record([result])  # noqa: SLF001

    assert recorded.disposition is Disposition.CLAIM_LOST
    assert tasks.rows("SELECT FROM outbox_messages WHERE id <> %s", [id_]) == []


class LosesTheAnswerToAnEnd(Database):
    """The answer to a COMMIT is lost: of the transaction that has acknowledged a message, once."""

    has_lost = False

    @contextmanager
    def transaction(self, **limits: Any) -> Iterator[TaskConnection]:
        with super().transaction(**limits) as connection:
            yield connection
            has_ended = connection.execute("SELECT FROM outbox_finished").rowcount > 0
        if has_ended and not self.has_lost:
            self.has_lost = True
            raise psycopg.OperationalError


def test_what_a_handler_appends_exists_once_after_a_lost_answer_to_commit(tasks: World) -> None:
    id_ = add_message(tasks.connection, Act.task, {"do": "append"}, status="published")
    database = LosesTheAnswerToAnEnd(tasks.url)

    assert tasks.process(id_, database=database) is DONE

    assert database.has_lost
    assert tasks.rows("SELECT payload FROM outbox") == [{"payload": {"text": "appended"}}]


@pytest.mark.parametrize(("task", "payload"), [(Act.task, {"do": "return"}), (Write.task, {"text": "an effect"})])
def test_nothing_begins_when_too_little_of_its_lease_is_left(tasks: World, task: str, payload: dict[str, str]) -> None:
    id_ = add_message(tasks.connection, task, payload, status="published")
    consumer = tasks.consumer()
    [claimed] = consumer._claimer.claim({id_: None}).claimed  # noqa: SLF001
    [work] = consumer._preparer.prepare([claimed]).work  # noqa: SLF001
    late = claimed.with_lease(Lease(monotonic() - claimed.lease.seconds / 2, claimed.lease.seconds))
    assert isinstance(work, MessageToHandle | MessagesToPrepare)

    [result] = consumer._place.carry_out(  # noqa: SLF001
        MessageToHandle(late) if isinstance(work, MessageToHandle) else MessagesToPrepare((late,))
    ).results

    assert isinstance(result.outcome, Released)
    assert effects(tasks) == []


def test_an_append_that_postgresql_refuses_is_a_failed_attempt(tasks: World) -> None:
    tasks.connection.execute("ALTER TABLE outbox ADD CONSTRAINT none_of_these CHECK (task <> 'test:write')")
    id_ = add_message(tasks.connection, Act.task, {"do": "append"})

    assert tasks.process(id_) is FAILED

    assert tasks.message(id_)["last_error"] == "PostgreSQL refused what the handler appended: CheckViolation"


def test_a_handler_that_finds_postgresql_down_spends_no_attempt(tasks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise psycopg.OperationalError

    id_ = add_message(tasks.connection, Act.task, {"do": "return"})
    monkeypatch.setattr("consumer.stages.handle.connect", refuse)

    assert tasks.process(id_) is RELEASED
    assert tasks.message(id_)["attempt"] == 0


def test_a_malformed_payload_is_not_handled(tasks: World) -> None:
    id_ = add_message(tasks.connection, Act.task, {"do": 5})

    assert tasks.process(id_) is DEAD
    assert tasks.message(id_)["last_error"] == "the payload is malformed: {'do': ['Not a valid string.']}"
    assert effects(tasks) == []
