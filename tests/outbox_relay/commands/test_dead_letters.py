import os
import pty
import secrets
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from embedded.programs.ports import free_port
from shared.database.connections import connect
from tests.outbox_relay.commands.running import run, run_json
from tests.programs.processes import ROOT
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


@pytest.mark.parametrize("status", ["pending", "published", "running"])
def test_only_a_dead_letter_is_retried(connection: Connection, status: str) -> None:
    id_ = add_message(connection, status=status)

    ended = run("retry", id_)

    assert (ended.exit_code, f"it is {status}" in ended.output) == (1, True)
    assert message(connection, id_)["generation"] == 0


def test_retry_and_discard_want_one_id_or_one_group_or_all(connection: Connection) -> None:
    group = ("--group", "0" * 16)
    retries = [(), (1, "--all"), (1, *group), ("--all", *group)]
    discards = [(), (1, *group)]

    assert [run("retry", *each).exit_code for each in retries] == [2] * 4
    assert [run("discard", *each, "--reason", "x").exit_code for each in discards] == [2] * 2


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


def test_groups_are_listed_the_largest_first(connection: Connection) -> None:
    for number in range(3):
        add_message(connection, status="dead", last_error=f"refused: 550 5.1.1 user{number} is unknown")
    add_message(connection, status="dead", task="task:other", last_error="\x1b[2Jno")

    shown = run("dead", "--groups").output
    found = run_json("dead", "--groups")

    first, second = found["groups"]
    assert (first["reason"], first["messages"], second["task"]) == ("refused: 550 5.1.1 * is unknown", 3, "task:other")
    assert (found["dead_letters"], found["other_groups"], found["are_all_groups"]) == (4, 0, True)
    assert shown.index(first["id"]) < shown.index(second["id"])
    assert "4 dead letters; retry --group ID" in shown
    assert "\x1b[2J" not in shown


def test_groups_beyond_the_limit_are_counted(connection: Connection) -> None:
    for reason in ("a", "b", "c"):
        add_message(connection, status="dead", last_error=reason)

    assert "and 2 other groups" in run("dead", "--groups", "--limit", 1).output


def test_without_dead_letters_there_are_no_groups(connection: Connection) -> None:
    assert run("dead", "--groups").output == "no dead letters\n"


@pytest.mark.parametrize(
    ("command", "options", "status"), [("retry", (), "pending"), ("discard", ("--reason", "a test"), "discarded")]
)
def test_a_group_is_retried_or_discarded_and_nothing_else(
    connection: Connection, command: str, options: tuple[str, ...], status: str
) -> None:
    chosen = [add_message(connection, status="dead", last_error=f"user{number} is unknown") for number in range(3)]
    other = add_message(connection, status="dead", last_error="another reason")
    [group] = [each["id"] for each in run_json("dead", "--groups")["groups"] if each["messages"] == 3]

    ended = run(command, "--group", group, *options)
    again = run(command, "--group", group, *options)

    assert (ended.exit_code, ended.output.startswith("3 dead letters are ")) == (0, True)
    assert {message(connection, id_)["status"] for id_ in chosen} == {status}
    assert message(connection, other)["status"] == "dead"
    assert (again.exit_code, "this group has no dead letters" in again.output) == (1, True)


def test_a_group_whose_id_is_malformed_is_a_wrong_command_line(connection: Connection) -> None:
    ended = run("retry", "--group", "12")

    assert (ended.exit_code, "`dead --groups` lists them" in ended.output) == (2, True)


def test_payloads_that_are_too_large_stay_dead_and_are_counted(connection: Connection) -> None:
    add_message(connection, status="dead")
    add_message(connection, status="dead", payload={"noise": secrets.token_hex(2**20)})

    assert run("retry", "--all").output == (
        "1 dead letters are pending again; 1 are not: their payload is too large, or someone else changed them\n"
    )


def test_ctrl_c_stops_a_retry_of_many_which_can_be_repeated(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    connection.execute(
        "INSERT INTO outbox (task, payload, status, attempt, last_error)"
        " SELECT 'task:t', '{}', 'dead', 1, 'no' FROM generate_series(1, 1001)"
    )
    terminal, process_side = pty.openpty()

    with connect(database_url, "test") as other, other.transaction():
        other.execute("SELECT FROM outbox ORDER BY id DESC LIMIT 1 FOR UPDATE")
        with (tmp_path / "stdout").open("w") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-m", "outbox_relay", "retry", "--all"],
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm", "DATABASE_URL": database_url},
                cwd=ROOT,
                stdout=stdout,
                stderr=process_side,
            )
        os.close(process_side)
        shown = _read_until(terminal, b"1000/1001")
        process.send_signal(signal.SIGINT)
        shown += _read_until(terminal, b"for the rest")
        exit_code = process.wait(10)
    os.close(terminal)
    again = run("retry", "--all")

    assert (exit_code, (tmp_path / "stdout").read_text()) == (1, "")
    assert b"stopped: 1000 of 1001 dead letters are pending again" in shown
    assert again.output == "1 dead letters are pending again\n"


def _read_until(terminal: int, expected: bytes) -> bytes:
    """Read what a process writes to its terminal, up to this text."""
    shown = b""
    while expected not in shown:
        readable, _, _ = select.select([terminal], [], [], 20)
        assert readable, f"the terminal shows only {shown!r}"
        shown += os.read(terminal, 4096)
    return shown
