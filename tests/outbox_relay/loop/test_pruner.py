"""Pruning: finished messages leave by their age, step by step."""

from typing import Any

import psycopg
import pytest

from outbox_relay.loop.maintenance.pruner import PRUNED_AT_ONCE, Pruner
from shared.outbox import pruning
from tests.rows import add_message, message

Connection = psycopg.Connection[tuple[Any, ...]]


def finished(connection: Connection, days_ago: int, status: str = "done", messages: int = 1) -> None:
    connection.execute(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT nextval(pg_get_serial_sequence('outbox', 'id')), 't', '{}', 'default', %s, now(), 0, 1, 10, '[]',
               now(), now() - make_interval(days => %s)
          FROM generate_series(1, %s)
        """,
        [status, days_ago, messages],
    )


def test_pruning_deletes_the_oldest_finished_messages_step_by_step(connection: Connection) -> None:
    for days_ago in (9, 8, 6):
        finished(connection, days_ago)
    finished(connection, 10, "discarded")

    pruned = [pruning.prune(connection, 7, 2).messages for _ in range(3)]

    assert pruned == [2, 1, 0]
    assert connection.execute("SELECT count(*) FROM outbox_finished").fetchone() == (1,)


def test_a_step_of_pruning_goes_on_where_the_last_one_ended(connection: Connection) -> None:
    for days_ago in (10, 9, 8):
        finished(connection, days_ago)

    first = pruning.prune(connection, 7, 2)
    finished(connection, 20)
    second = pruning.prune(connection, 7, 2, first.until)
    third = pruning.prune(connection, 7, 2)

    assert (first.messages, second.messages, third.messages) == (2, 1, 1)


def test_many_steps_of_pruning_leave_nothing_behind(connection: Connection) -> None:
    # Some were finished at the same moment, on both sides of a step's end.
    for days_ago in (30, 20, 10):
        finished(connection, days_ago, messages=PRUNED_AT_ONCE - 1)
    finished(connection, 1, messages=3)
    pruner = Pruner(keep_days=7)

    steps = [pruner.step(connection) for _ in range(5)]
    finished(connection, 40)

    assert steps == [PRUNED_AT_ONCE, PRUNED_AT_ONCE, PRUNED_AT_ONCE - 3, 0, 0]
    assert pruner.step(connection) == 1
    assert connection.execute("SELECT count(*) FROM outbox_finished").fetchone() == (3,)


@pytest.mark.parametrize("status", ["pending", "published", "running", "dead"])
def test_pruning_never_touches_an_unfinished_message(connection: Connection, status: str) -> None:
    id_ = add_message(connection, status=status, created_at="2000-01-01T00:00:00Z")

    pruning.prune(connection, 0, 1000)

    assert message(connection, id_)["status"] == status
