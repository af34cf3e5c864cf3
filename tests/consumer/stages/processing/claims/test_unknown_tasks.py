"""A message of a task that its worker does not know waits for another worker, and is a dead letter after an hour."""

from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from consumer.model.results import Disposition
from consumer.task.registry import load_tasks
from shared.outbox.operations import dead_letters
from tests.consumer import handled_tasks
from tests.consumer.handled_tasks import Write
from tests.consumer.stages.processing.world import Logs, World
from tests.rows import add_message

AN_HOUR_AGO = "UPDATE outbox SET failures = jsonb_set(failures, '{0,counts,unknown_since}', %s), due_at = now()"


def test_it_is_released_for_a_minute_and_logged_at_once(world: World, logs: Logs) -> None:
    id_ = add_message(world.connection, Write.task, {"text": "a"})

    assert world.process(id_) is Disposition.RELEASED

    row = world.message(id_)
    assert (row["status"], row["attempt"]) == ("pending", 0)
    assert row["last_error"].startswith("unknown task: ")
    assert timedelta(seconds=55) < row["due_at"] - datetime.now(UTC) < timedelta(seconds=65)
    assert [line["task"] for line in logs if line["event"] == "task.unknown"] == [Write.task]


def test_a_worker_that_knows_the_task_does_it(world: World) -> None:
    id_ = add_message(world.connection, Write.task, {"text": "a"})
    world.process(id_)
    world.make_due(id_)
    world.tasks = load_tasks([handled_tasks.MODULE])
    world.connection.execute(handled_tasks.EFFECTS)

    assert world.process(id_) is Disposition.DELIVERED
    assert world.message(id_)["attempt"] == 1


@pytest.mark.parametrize(("seconds", "disposition"), [(3500, Disposition.RELEASED), (3700, Disposition.DEAD)])
def test_it_is_a_dead_letter_an_hour_after_the_first_time(world: World, seconds: int, disposition: Disposition) -> None:
    id_ = add_message(world.connection, Write.task, {"text": "a"})
    world.process(id_)
    world.connection.execute(AN_HOUR_AGO, [Jsonb(datetime.now(UTC).timestamp() - seconds)])

    assert world.process(id_) is disposition

    row = world.message(id_)
    assert row["attempt"] == (1 if disposition is Disposition.DEAD else 0)
    assert len(row["failures"]) == (2 if disposition is Disposition.DEAD else 1)


def test_after_an_operators_retry_the_hour_begins_again(world: World) -> None:
    id_ = add_message(world.connection, Write.task, {"text": "a"})
    world.process(id_)
    world.connection.execute(AN_HOUR_AGO, [Jsonb(1)])
    world.process(id_)

    assert dead_letters.retry(world.connection, id_)
    assert world.process(id_) is Disposition.RELEASED


@pytest.mark.parametrize("foreign", ['[{"counts": {"unknown_since": "x"}}]', '[{"counts": 5}]'])
def test_what_another_program_wrote_there_harms_nothing(world: World, foreign: str) -> None:
    id_ = add_message(world.connection, Write.task, {"text": "a"})
    world.connection.execute("UPDATE outbox SET failures = %s::jsonb", [foreign])

    assert world.process(id_) in {Disposition.RELEASED, Disposition.DEAD}
