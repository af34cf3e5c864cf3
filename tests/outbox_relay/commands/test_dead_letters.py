from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from embedded.programs.ports import free_port
from shared.outbox.operations import dead_letters
from tests.outbox_relay.commands.running import run, run_json
from tests.rows import add_message, message

Connection = psycopg.Connection[tuple[Any, ...]]


def test_without_dead_letters_it_says_so(connection: Connection) -> None:
    add_message(connection)

    assert run("dead").output == "no dead letters\n"


def test_dead_letters_are_listed_with_their_reason(connection: Connection) -> None:
    add_message(connection)
    id_ = add_message(connection, status="dead", last_error="refused: 550 no such mailbox")

    shown = run("dead").output

    assert [part in shown for part in (str(id_), "task:send_verify_email", "refused: 550 no such mailbox")] == [
        True
    ] * 3
    assert "1 of 1 dead letters" in shown
    assert [letter["id"] for letter in run_json("dead")["shown"]] == [id_]


def test_a_dead_letter_that_may_have_been_accepted_says_so(connection: Connection) -> None:
    for maybe_accepted in (True, False):
        add_message(connection, status="dead", failures=Jsonb([{"attempt": 11, "maybe_accepted": maybe_accepted}]))

    lines = run("dead").output.splitlines()

    assert ["may have been accepted" in line for line in lines if "a reason" in line] == [True, False]


def test_a_retried_dead_letter_is_pending_with_all_its_attempts_and_a_new_generation(connection: Connection) -> None:
    id_ = add_message(connection, status="dead", generation=10)

    ended = run("retry", id_)

    row = message(connection, id_)
    assert (ended.exit_code, row["status"], row["attempt"], row["generation"]) == (0, "pending", 0, 11)
    assert connection.execute("SELECT due_at <= now() FROM outbox").fetchone() == (True,)


def test_all_dead_letters_are_retried_and_nothing_else(connection: Connection) -> None:
    dead = [add_message(connection, status="dead") for _ in range(3)]
    running = add_message(connection, status="running")

    ended = run("retry", "--all")

    assert ended.output == "3 dead letters are pending again\n"
    assert {message(connection, id_)["status"] for id_ in dead} == {"pending"}
    assert message(connection, running)["status"] == "running"


def test_a_dead_letter_that_dies_again_meanwhile_is_retried_once(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        add_message(connection, status="dead")
    retry_step = dead_letters._retry  # noqa: SLF001
    steps: list[Any] = []

    def retry_and_die(*arguments: Any) -> list[int]:
        steps.append(arguments)
        assert len(steps) < 10, "the dead letters that died again are retried again"
        retried = retry_step(*arguments)
        connection.execute("UPDATE outbox SET status = 'dead', last_error = 'no' WHERE status = 'pending'")
        return retried

    monkeypatch.setattr(dead_letters, "_retry", retry_and_die)

    assert dead_letters.retry_all(connection, at_once=1) == 3


@pytest.mark.parametrize("status", ["pending", "published", "running"])
def test_only_a_dead_letter_is_retried(connection: Connection, status: str) -> None:
    id_ = add_message(connection, status=status)

    ended = run("retry", id_)

    assert (ended.exit_code, f"it is {status}" in ended.output) == (1, True)
    assert message(connection, id_)["generation"] == 0


def test_retry_wants_one_id_or_all(connection: Connection) -> None:
    assert [run("retry").exit_code, run("retry", 1, "--all").exit_code] == [2, 2]


@pytest.mark.parametrize("status", ["dead", "pending"])
def test_a_discarded_message_is_history_with_its_reason(connection: Connection, status: str) -> None:
    id_ = add_message(connection, status=status)

    ended = run("discard", id_, "--reason", "the user left")

    row = message(connection, id_)
    assert (ended.exit_code, row["status"], row["last_error"]) == (0, "discarded", "discarded: the user left")
    assert row["finished_at"] is not None


@pytest.mark.parametrize("status", ["published", "running"])
def test_a_message_at_work_is_not_discarded(connection: Connection, status: str) -> None:
    id_ = add_message(connection, status=status)

    ended = run("discard", id_, "--reason", "why not")

    assert (ended.exit_code, message(connection, id_)["status"]) == (1, status)


@pytest.mark.parametrize("reason", ["", " ", "two\nlines"])
def test_a_discard_needs_a_reason(connection: Connection, reason: str) -> None:
    id_ = add_message(connection, status="dead")

    ended = run("discard", id_, "--reason", reason)

    assert (ended.exit_code, message(connection, id_)["status"]) == (2, "dead")


@pytest.mark.parametrize("arguments", [("retry", 999), ("discard", 999, "--reason", "x")])
def test_an_unknown_message_is_named(connection: Connection, arguments: tuple[object, ...]) -> None:
    ended = run(*arguments)

    assert (ended.exit_code, "no such message" in ended.output) == (1, True)


def test_an_absent_postgresql_is_named_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:hunter2@127.0.0.1:{port}/x")

    ended = run("dead")

    cause = f"PostgreSQL cannot be used: 127.0.0.1:{port}: Connection refused\n"
    assert (ended.exit_code, ended.output) == (1, cause)
