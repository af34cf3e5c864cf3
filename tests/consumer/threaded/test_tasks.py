"""Handlers and Done() in an OutboxWorker: renewal, timeouts, lost places, and a stop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.threaded.outbox_worker import EXIT_PLACES_LOST
from embedded.mail.catcher import MailCatcher
from shared.database.connections import connect
from tests.consumer import handled_tasks
from tests.consumer.handled_tasks import Act, ActForLong, Write, WriteSoon
from tests.consumer.threaded import fast_workers
from tests.consumer.threaded.service import WAIT, Service, said, service_of
from tests.programs.preloading import Preloaded
from tests.programs.processes import publish
from tests.rows import add_message, message
from tests.waiting import wait_until


@pytest.fixture
def tasks(
    database_url: str, redis_url: str, mailbox: MailCatcher, origin: Preloaded, tmp_path: Path
) -> Iterator[Service]:
    with service_of(database_url, redis_url, mailbox, origin, tmp_path) as service:
        service.settings["OUTBOX_TASKS"] = f"consumer.tasks,{handled_tasks.MODULE}"
        service.connection.execute(handled_tasks.EFFECTS)
        yield service


def add(service: Service, task: str, **payload: Any) -> int:
    return add_message(service.connection, task, payload)


def publish_all(service: Service, count: int) -> None:
    assert publish(service.connection, service.redis_url) == count


def test_a_handler_outlives_its_lease(tasks: Service) -> None:
    id_ = add(tasks, ActForLong.task, do="sleep", seconds=4)
    publish_all(tasks, 1)
    tasks.start(OUTBOX_RUN_LEASE_SECONDS="1.5")

    wait_until(lambda: tasks.status(id_) == "running", WAIT, "the claim")
    overdue = "SELECT lease_until < clock_timestamp() FROM outbox"
    seen: set[Any] = set()

    def is_done() -> bool:
        seen.update(tasks.connection.execute(overdue).fetchall())
        return tasks.status(id_) == "done"

    wait_until(is_done, WAIT, "the handler to return")

    assert seen == {(False,)}
    assert message(tasks.connection, id_)["attempt"] == 1


def test_many_effects_happen_exactly_once(tasks: Service) -> None:
    ids = [add(tasks, Write.task, text=f"effect {number}") for number in range(40)]
    publish_all(tasks, 40)
    tasks.start()

    tasks.wait_for_done(ids)

    written = tasks.connection.execute("SELECT count(*), count(DISTINCT message) FROM effects").fetchone()
    assert written == (40, 40)
    wait_until(lambda: not tasks.redis.keys("*:job:*"), WAIT, "the jobs to be deleted")


def test_a_task_that_waits_delays_no_mail(tasks: Service) -> None:
    ids = [add(tasks, Write.task, text="waits") for _ in range(2)]
    publish_all(tasks, 2)
    with connect(tasks.settings["DATABASE_URL"], "a human") as human, human.transaction():
        human.execute("LOCK TABLE effects IN ACCESS EXCLUSIVE MODE")
        tasks.start(WORKER_CONCURRENCY="2")
        wait_until(lambda: {tasks.status(id_) for id_ in ids} == {"running"}, WAIT, "the tasks to wait")
        [mail] = tasks.publish()
        tasks.wait_for_done([mail])
        assert {tasks.status(id_) for id_ in ids} == {"running"}

    tasks.wait_for_done(ids)


def test_a_handler_that_never_returns_is_a_dead_letter_and_its_worker_exits(tasks: Service) -> None:
    id_ = add(tasks, Act.task, do="hang")
    publish_all(tasks, 1)
    worker = tasks.start(WORKER_CONCURRENCY="2", OUTBOX_BACKOFF_SCALE="0")
    wait_until(lambda: not worker.running, WAIT, "the worker to exit")

    assert worker.exit_code == EXIT_PLACES_LOST
    assert [line["message_ids"] for line in said(worker, "task.late")] == [[id_]]
    assert said(worker, "places.lost")
    row = message(tasks.connection, id_)
    assert (row["status"], row["attempt"], row["last_error"]) == ("pending", 1, "the task ran for longer than 1 s")

    publish_all(tasks, 1)
    again = tasks.start(WORKER_CONCURRENCY="4")
    wait_until(lambda: tasks.status(id_) == "dead", WAIT, "the second time")
    assert message(tasks.connection, id_)["last_error"] == "the task ran for longer than 1 s for the second time"
    [mail] = tasks.publish()
    tasks.wait_for_done([mail])
    assert again.running


def test_a_preparation_that_takes_too_long_takes_no_other_along_for_good(tasks: Service) -> None:
    innocent, guilty = (add(tasks, WriteSoon.task, text=text) for text in ("an effect", "a long statement"))
    publish_all(tasks, 2)
    worker = tasks.start(WORKER_CONCURRENCY="8", OUTBOX_BACKOFF_SCALE="0")
    ids = (innocent, guilty)
    wait_until(lambda: {tasks.status(id_) for id_ in ids} == {"pending"}, WAIT, "both to fail")
    assert [message(tasks.connection, id_)["attempt"] for id_ in ids] == [1, 1]

    publish_all(tasks, 2)
    wait_until(lambda: [tasks.status(id_) for id_ in ids] == ["done", "dead"], WAIT, "the second attempts")

    assert tasks.connection.execute("SELECT message FROM effects").fetchall() == [("an effect",)]
    wait_until(lambda: len(said(worker, "task.returned_late")) == 2, WAIT, "PostgreSQL to end the statements")


def test_a_handler_that_returns_late_gives_its_place_back(tasks: Service) -> None:
    id_ = add(tasks, Act.task, do="sleep", seconds=1.6)
    publish_all(tasks, 1)
    worker = tasks.start(WORKER_CONCURRENCY="3")

    wait_until(lambda: said(worker, "task.returned_late"), WAIT, "the handler to return")

    assert message(tasks.connection, id_)["status"] == "pending"
    assert len(said(worker, "message.failed")) == 1


def test_a_worker_that_is_stopped_releases_what_its_handlers_do(tasks: Service) -> None:
    id_ = add(tasks, ActForLong.task, do="sleep", seconds=60)
    publish_all(tasks, 1)
    worker = tasks.start_fast("ShortGrace", OUTBOX_RUN_LEASE_SECONDS="3")
    wait_until(lambda: tasks.connection.execute("SELECT FROM effects").fetchall(), WAIT, "the handler to run")

    worker.stop(WAIT)

    row = message(tasks.connection, id_)
    assert (worker.exit_code, row["status"], row["attempt"]) == (0, "pending", 0)


def test_a_worker_without_further_jobs_waits_for_its_handlers(tasks: Service) -> None:
    id_ = add(tasks, ActForLong.task, do="sleep", seconds=5)
    publish_all(tasks, 1)
    worker = tasks.start("--burst", RQ_WORKER_CLASS=f"{fast_workers.MODULE}.ShortGrace", OUTBOX_RUN_LEASE_SECONDS="3")

    wait_until(lambda: not worker.running, WAIT, "the worker to end")

    assert (worker.exit_code, tasks.status(id_)) == (0, "done")


def test_a_handler_that_exits_costs_its_neighbours_a_lease(tasks: Service) -> None:
    neighbour = add(tasks, ActForLong.task, do="sleep", seconds=60)
    publish_all(tasks, 1)
    worker = tasks.start(WORKER_CONCURRENCY="4")
    wait_until(lambda: tasks.connection.execute("SELECT FROM effects").fetchall(), WAIT, "the neighbour to run")
    deadly = add(tasks, Act.task, do="exit")
    publish_all(tasks, 1)

    wait_until(lambda: not worker.running, WAIT, "the worker to die")

    assert worker.exit_code == 1
    rows = [message(tasks.connection, id_) for id_ in (neighbour, deadly)]
    assert [(row["status"], row["attempt"]) for row in rows] == [("running", 1)] * 2


def test_a_worker_with_an_unusable_module_stops_at_its_start(tasks: Service) -> None:
    worker = tasks.start(wait=False, OUTBOX_TASKS="consumer.tasks,nothing_of_this_name")

    wait_until(lambda: not worker.running, WAIT, "the worker to exit")

    assert worker.exit_code == 2
    assert (
        "OUTBOX_TASKS: nothing_of_this_name cannot be imported: ModuleNotFoundError"
        in worker.command.log_file.read_text()
    )
