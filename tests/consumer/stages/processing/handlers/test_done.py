"""What is Done() in a transaction is acknowledged in it: its effects happen exactly once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import psycopg
import pytest

from consumer.model.message import MessagesToPrepare
from consumer.model.results import Disposition
from consumer.stages.database import Database, TaskConnection
from consumer.task.registry import load_tasks
from shared.database.connections import connect
from shared.outbox.claiming import claims
from shared.outbox.messages import MAIL
from tests.consumer import handled_tasks
from tests.consumer.handled_tasks import Write
from tests.consumer.stages.processing.world import Logs, World
from tests.rows import add_message

FAILED, DEAD, DONE = Disposition.FAILED, Disposition.DEAD, Disposition.DELIVERED
ENDED = "the task ended the transaction itself: its writes may have been committed more than once"


@pytest.fixture
def tasks(world: World) -> World:
    world.tasks = load_tasks([handled_tasks.MODULE, "consumer.tasks"])
    world.connection.execute(handled_tasks.EFFECTS)
    return world


@dataclass(frozen=True, slots=True)
class WriteAMail(Write):
    task: ClassVar[str] = "test:write_a_mail"
    destination: ClassVar[str | None] = MAIL


def effects(world: World) -> list[str]:
    return [row["message"] for row in world.rows("SELECT message FROM effects ORDER BY message")]


def add(world: World, text: str) -> int:
    return add_message(world.connection, Write.task, {"text": text}, status="published")


@pytest.mark.parametrize(
    ("text", "disposition", "reason", "written"),
    [
        ("an effect", DONE, None, ["an effect"]),
        ("a savepoint", DONE, None, ["a savepoint"]),
        ("Discarded", Disposition.DISCARDED, "discarded: not needed", ["Discarded"]),
        ("Undeliverable", DEAD, "no use", ["Undeliverable"]),
        ("nothing", FAILED, "prepare returned nothing for this message", ["nothing"]),
        ("a number", FAILED, "prepare returned an object of the class int for this message", ["a number"]),
        ("no mapping", FAILED, "prepare returned an object of the class list in place of a mapping", ["no mapping"]),
        ("raise", FAILED, "KeyError while the message was prepared", []),
        ("raise SystemExit", FAILED, "SystemExit while the message was prepared", []),
        ("commit()", FAILED, "ProgrammingError while the message was prepared", []),
        ("close()", FAILED, "ProgrammingError while the message was prepared", []),
        ("a thread", FAILED, "ProgrammingError while the message was prepared", []),
        ("COMMIT", DEAD, ENDED, ["COMMIT"]),
        ("COMMIT; BEGIN", DEAD, ENDED, ["COMMIT; BEGIN"]),
        ("COMMIT AND CHAIN", DEAD, ENDED, ["COMMIT AND CHAIN"]),
        ("ROLLBACK", DEAD, ENDED, []),
    ],
)
def test_each_end_of_a_preparation_is_defined(
    tasks: World, text: str, disposition: Disposition, reason: str | None, written: list[str]
) -> None:
    id_ = add(tasks, text)

    assert tasks.process(id_) is disposition

    row = tasks.message(id_)
    assert (row["last_error"] or "").startswith(reason or "")
    assert row["attempt"] == 1
    assert effects(tasks) == written


def test_a_message_that_is_appended_in_prepare_is_a_part_of_the_transaction(tasks: World) -> None:
    assert tasks.process(add(tasks, "append")) is DONE

    assert [row["payload"] for row in tasks.rows("SELECT payload FROM outbox")] == [{"text": "appended"}]


def test_a_message_that_fails_takes_no_other_along(tasks: World) -> None:
    ids = [add(tasks, text) for text in ("one", "raise", "COMMIT AND CHAIN", "two", "nothing")]

    dispositions = together(tasks, ids)

    # The one that commits has committed what was before it, so the effects of others may be there twice.
    assert dispositions == {ids[0]: DONE, ids[1]: FAILED, ids[2]: DEAD, ids[3]: DONE, ids[4]: FAILED}
    assert tasks.rows("SELECT status FROM outbox_finished") == [{"status": "done"}] * 2


def together(world: World, ids: list[int], before: Callable[[], object] = lambda: None) -> dict[int, Disposition]:
    """Claim the messages together, do something, and carry out what there is to do."""
    consumer = world.consumer()
    claimed = consumer._claimer.claim(dict.fromkeys(ids)).claimed  # noqa: SLF001
    [work] = consumer._preparer.prepare(claimed).work  # noqa: SLF001
    before()
    step = consumer._place.carry_out(work)  # noqa: SLF001
    recorded = [*step.recorded, *consumer._recorder.record(step.results)]  # noqa: SLF001
    return {each.result.message.claim.id: each.disposition for each in recorded}


def test_a_worker_that_wakes_after_its_lease_does_nothing_twice(tasks: World, logs: Logs) -> None:
    ids = [add(tasks, "one"), add(tasks, "two")]

    def let_another_worker_do_the_first() -> None:
        tasks.take_back(ids[0])
        assert tasks.process(ids[0]) is DONE

    dispositions = together(tasks, ids, let_another_worker_do_the_first)

    assert dispositions == {ids[0]: DONE, ids[1]: DONE}
    assert effects(tasks) == ["one", "two"]
    assert [line["message_ids"] for line in logs if line["event"] == "done.rolled_back"] == [ids]


def test_a_message_that_was_taken_over_is_left_to_the_other_worker(tasks: World) -> None:
    ids = [add(tasks, "one"), add(tasks, "two")]

    dispositions = together(tasks, ids, lambda: tasks.take_back(ids[0]))

    assert dispositions == {ids[0]: Disposition.CLAIM_LOST, ids[1]: DONE}
    assert effects(tasks) == ["two"]
    assert tasks.message(ids[0])["status"] == "pending"


class LosesAnAnswer(Database):
    """The answer to a COMMIT is lost: of the transaction that has written effects, once."""

    has_lost = False

    @contextmanager
    def transaction(self, **limits: Any) -> Iterator[TaskConnection]:
        with super().transaction(**limits) as connection:
            yield connection
            written = connection.execute("SELECT count(*) FROM effects WHERE xmin::text = txid_current()::text")
            has_written = written.fetchone() != (0,)
        if has_written and not self.has_lost:
            self.has_lost = True
            self.has_failed = True
            raise psycopg.OperationalError


def test_a_lost_answer_to_commit_repeats_no_effect(tasks: World) -> None:
    id_ = add(tasks, "once")
    database = LosesAnAnswer(tasks.url)

    assert tasks.process(id_, database=database) is DONE

    assert database.has_lost
    assert effects(tasks) == ["once"]
    assert tasks.message(id_)["status"] == "done"


def test_who_asks_what_is_still_ours_waits_for_a_commit_in_progress(tasks: World) -> None:
    id_ = add(tasks, "one")
    [claimed] = tasks.consumer()._claimer.claim({id_: None}).claimed  # noqa: SLF001
    with connect(tasks.url, "committing") as committing, committing.transaction():
        claims.ack(committing, [claimed.claim])
        tasks.connection.execute("SET lock_timeout = '50ms'")

        with pytest.raises(psycopg.errors.LockNotAvailable):
            claims.own_among(tasks.connection, [claimed.claim])

    assert claims.own_among(tasks.connection, [claimed.claim]) == set()


def test_a_mail_of_somebody_elses_task_is_prepared_in_a_place(tasks: World) -> None:
    elsewhere = replace(handled_tasks.TASKS[2], message=WriteAMail)
    tasks.tasks = tasks.tasks.with_tasks(elsewhere)
    id_ = add_message(tasks.connection, WriteAMail.task, {"text": "one"}, status="published")
    consumer = tasks.consumer()
    [claimed] = consumer._claimer.claim({id_: None}).claimed  # noqa: SLF001

    [work] = consumer._preparer.prepare([claimed]).work  # noqa: SLF001

    assert claimed.claim.destination == MAIL
    assert isinstance(work, MessagesToPrepare)


def test_an_outage_inside_a_tasks_other_connection_is_its_own_failure(tasks: World) -> None:
    id_ = add(tasks, "elsewhere")
    original = handled_tasks.TASKS[2].prepare

    def ask_elsewhere(*_arguments: Any) -> Any:
        connect(f"{tasks.url}_that_does_not_exist", "elsewhere")

    object.__setattr__(handled_tasks.TASKS[2], "prepare", ask_elsewhere)
    try:
        assert tasks.process(id_) is FAILED
    finally:
        object.__setattr__(handled_tasks.TASKS[2], "prepare", original)
    assert tasks.message(id_)["last_error"] == "OperationalError while the message was prepared"


def test_what_a_task_leaves_in_the_session_is_gone(tasks: World) -> None:
    consumer = tasks.consumer()
    connection = consumer._database._open()  # noqa: SLF001
    [search_path] = connection.execute("SHOW search_path").fetchone() or ()
    connection.execute("SELECT pg_advisory_lock(1)")
    connection.execute(f"SET search_path = pg_temp, {search_path}; LISTEN something")

    assert consumer.process(add(tasks, "one")) is DONE

    left = connection.execute(
        "SELECT current_setting('search_path'), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
    ).fetchone()
    assert left == (search_path, 0)
