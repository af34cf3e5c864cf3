"""`list`, `show`, `replay` and `prune`."""

import json
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from shared.outbox.messages import NOTIFY_CHANNEL
from shared.outbox.operations.dead_letters import discard
from tests.outbox_relay.commands.running import run, run_json
from tests.programs.processes import ROOT
from tests.rows import add_message, message

Connection = psycopg.Connection[tuple[Any, ...]]

TASK = "task:send_verify_email"


def finish(connection: Connection, id_: int, at: str = "2026-06-01 12:00:00+00") -> int:
    """Make history of a message, as a consumer's acknowledgement does."""
    connection.execute(
        """
        WITH gone AS (DELETE FROM outbox WHERE id = %s RETURNING *)
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT id, task, payload, queue, 'done', due_at, generation, 1, max_retries, failures, created_at, %s FROM gone
        """,
        [id_, at],
    )
    return id_


def test_messages_are_listed_with_the_newest_first(connection: Connection) -> None:
    ids = [finish(connection, add_message(connection)), add_message(connection), add_message(connection)]

    assert [each["id"] for each in run_json("list")] == ids[::-1]
    assert [str(id_) in run("list").output for id_ in ids] == [True] * 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--status", "done"], ["old"]),
        (["--status", "dead", "--status", "done"], ["dead", "old"]),
        (["--queue", "critical"], ["urgent"]),
        (["--task", "t"], ["dead"]),
        (["--limit", "1"], ["urgent"]),
    ],
)
def test_a_list_holds_only_what_was_asked_for(connection: Connection, options: list[str], expected: list[str]) -> None:
    names = {
        finish(connection, add_message(connection)): "old",
        add_message(connection, task="t", status="dead"): "dead",
        add_message(connection, queue="critical"): "urgent",
    }

    assert [names[each["id"]] for each in run_json("list", *options)] == expected


@pytest.mark.parametrize("due_at", ["infinity", "-infinity"])
def test_a_due_time_without_end_is_no_obstacle(connection: Connection, due_at: str) -> None:
    ids = [finish(connection, add_message(connection), at="now"), add_message(connection)]
    for table in ("outbox", "outbox_finished"):
        connection.execute(SQL("UPDATE {} SET due_at = %s").format(Identifier(table)), [due_at])
    connection.execute("UPDATE outbox_finished SET published_at = now()")

    listed, shown, stats = run("list", "--json"), [run("show", id_) for id_ in ids], run("stats", "--json")

    assert [each.exit_code for each in (listed, *shown)] == [0, 0, 0], listed.output
    assert [each["due_at"] for each in json.loads(listed.stdout)] == [None, None]
    assert json.loads(stats.stdout)
    assert "Infinity" not in stats.stdout


def test_show_has_every_time_and_every_failed_attempt(connection: Connection) -> None:
    failures = [{"at": "2026-06-01T12:00:00+00:00", "attempt": 1, "reason": "451 later", "maybe_accepted": True}]
    id_ = add_message(connection, status="running", attempt=2, failures=Jsonb(failures))

    shown = run("show", id_).output

    shown_as_json = run_json("show", id_)
    assert shown_as_json["failures"] == failures
    assert shown_as_json["claimed_at"] == "2026-01-01T00:00:00+00:00"
    expected = ("running", "created_at", "claimed_at", "2026-01-01 00:00:00", "451 later", "may have been accepted")
    assert [part in shown for part in expected] == [True] * len(expected)


def test_the_documented_example_has_the_lines_of_show(connection: Connection) -> None:
    id_ = add_message(connection, status="dead", failures=Jsonb([{"attempt": 1, "reason": "x"}]))
    example = (ROOT / "docs/operations/commands.md").read_text().partition("## One message")[2].split("```")[1]

    assert first_words(example) == first_words(run("show", id_).output)


def first_words(text: str) -> list[str]:
    """Return the first word of each line, without the last one, which is a time."""
    return [line.split()[0].strip("─") for line in text.strip().splitlines()][:-1]


def test_a_finished_message_can_be_shown_too(connection: Connection) -> None:
    id_ = finish(connection, add_message(connection))

    assert run_json("show", id_)["status"] == "done"


def test_a_message_that_never_was_is_said_to_be_none(connection: Connection) -> None:
    ended = run("show", 999)

    assert (ended.exit_code, "no such message" in ended.output) == (1, True)


def test_what_a_mail_server_said_cannot_steer_the_terminal(connection: Connection) -> None:
    id_ = add_message(connection, status="dead", last_error="550 \x1b[2Jgone")

    assert "550 \\x1b[2Jgone" in run("show", id_).output


def replay(*more: str, answer: str | None = None) -> Any:
    return run("replay", "--task", TASK, "--since", "2026-06-01", "--until", "2026-06-02", *more, answer=answer)


def test_a_replay_appends_new_messages_and_leaves_the_old_ones(connection: Connection) -> None:
    old = [finish(connection, add_message(connection, payload={"username": name}, queue="critical")) for name in "ab"]
    finish(connection, add_message(connection, task="task:another"))
    finish(connection, add_message(connection), at="2026-06-02 00:00:00+00")
    connection.execute(f"LISTEN {NOTIFY_CHANNEL}")

    ended = replay(answer="y\n")

    assert (ended.exit_code, "append 2 new messages" in ended.output) == (0, True)
    new = [message(connection, each["id"]) for each in run_json("list", "--status", "pending")]
    assert [(row["payload"]["username"], row["queue"], row["attempt"]) for row in new[::-1]] == [
        ("a", "critical", 0),
        ("b", "critical", 0),
    ]
    assert {message(connection, id_)["status"] for id_ in old} == {"done"}
    assert len(list(connection.notifies(timeout=5, stop_after=1))) == 1


def test_a_replay_that_is_not_agreed_to_appends_nothing(connection: Connection) -> None:
    finish(connection, add_message(connection))

    ended = replay(answer="n\n")

    assert (ended.exit_code, run_json("list", "--status", "pending")) == (1, [])


def test_a_replay_appends_no_more_than_what_was_agreed_to(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(connection, add_message(connection))
    monkeypatch.setattr("click.confirm", lambda *_, **__: finish(connection, add_message(connection)))

    ended = replay()

    assert (ended.exit_code, "2 messages instead of 1" in ended.output) == (1, True)
    assert run_json("list", "--status", "pending") == []


def test_a_replay_of_more_than_the_limit_is_refused(connection: Connection) -> None:
    for _ in range(3):
        finish(connection, add_message(connection))

    refused = replay("--limit", "2", "--yes")

    assert (refused.exit_code, "narrow the time range" in refused.output) == (1, True)
    assert replay("--limit", "3", "--yes").output == "3 messages are appended\n"


def test_a_replay_of_discarded_messages_has_to_be_asked_for(connection: Connection) -> None:
    discard(connection, add_message(connection, status="dead"), "not now")
    since = ("--task", TASK, "--since", "2026-01-01", "--yes")

    assert run_json("replay", *since) == {"appended": 0}
    assert run_json("replay", *since, "--discarded") == {"appended": 1}


def test_pruning_takes_old_history_and_nothing_else(connection: Connection) -> None:
    finish(connection, add_message(connection))
    dead = add_message(connection, status="dead", created_at="2020-01-01T00:00:00Z")

    refused = run("prune", "--older-than-days", 1, answer="n\n")
    pruned = run_json("prune", "--older-than-days", 1, "--yes")

    assert (refused.exit_code, pruned) == (1, {"pruned": 1})
    assert [each["id"] for each in run_json("list")] == [dead]


def test_history_from_before_the_bounds_hides_no_list(connection: Connection) -> None:
    """Rows of outbox_finished keep what they were finished with."""
    ids = [finish(connection, add_message(connection)) for _ in range(5)]
    far, before_christ, odd, deep, endless = ids
    for id_, change in {
        far: "due_at = '10000-01-01', created_at = '294276-01-01', finished_at = '10000-01-01'",
        before_christ: "due_at = '4713-01-01 BC', created_at = '-infinity', finished_at = '0044-03-15 BC'",
        odd: """failures = '[1, "text", null, {"maybe_accepted": "x", "at": {}}]'""",
        deep: "failures = jsonb_build_array(1e5000::numeric)",
        endless: "published_at = 'infinity', claimed_at = '-infinity', failures = '{}', finished_at = 'infinity'",
    }.items():
        connection.execute(f"UPDATE outbox_finished SET {change} WHERE id = {id_}")

    listed = {each["id"]: each["due_at"] for each in run_json("list")}
    shown = {id_: run_json("show", id_)["failures"] for id_ in ids}
    run_json("stats")

    assert (set(listed), listed[far], listed[before_christ]) == (set(ids), None, None)
    assert all(run("show", id_).exit_code == 0 for id_ in ids)
    assert [entry.get("reason") for entry in shown[odd]] == ["1", '"text"', "null", None]
    assert "cannot be read" in shown[deep][0]["reason"]
    assert run_json("prune", "--older-than-days", "1", "--yes") == {"pruned": 3}
