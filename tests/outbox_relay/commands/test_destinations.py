"""`destinations`: what operators see of each destination, and pauses and limits."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.outbox_relay.commands.running import run, run_json
from tests.programs.processes import ROOT
from tests.rows import add_message
from tests.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]


def row(connection: Connection, name: str) -> tuple[Any, ...] | None:
    return connection.execute(
        "SELECT paused_at IS NOT NULL, pause_reason, max_per_second, max_in_flight FROM outbox_destinations"
        " WHERE name = %s",
        [name],
    ).fetchone()


def test_each_destination_is_listed_with_what_holds_it_up(connection: Connection) -> None:
    add_message(connection, destination="mail", due_at="2026-01-01T00:00:00Z")
    add_message(connection, destination="webhook:1", status="running")
    add_message(connection, destination=None)
    connection.execute(
        "INSERT INTO outbox_destinations (name, opened_at, probe_at, last_error)"
        " VALUES ('webhook:1', now() - interval '9 min', now(), 'Connection refused')"
    )
    run("destinations", "pause", "billing", "--reason", "the move")
    run("destinations", "limit", "billing", "--per-second", "1000000", "--in-flight", 3)

    shown = run("destinations").output
    listed = {each["name"]: each for each in run_json("destinations", "list")}

    assert list(listed) == ["mail", "billing", "webhook:1", "other"]
    assert (listed["mail"]["pending"], listed["webhook:1"]["running"], listed["other"]["pending"]) == (1, 1, 1)
    assert "unreachable for 9 min: Connection refused" in shown
    assert "the move; a limit of 1000000 a second and 3 in flight" in shown
    assert [each["name"] for each in run_json("stats")["destinations"]] == list(listed)


@pytest.mark.parametrize("command", ["destinations", "stats"])
def test_mail_is_always_listed(connection: Connection, command: str) -> None:
    assert "mail" in run(command).output


def test_a_destination_is_paused_and_resumed(connection: Connection) -> None:
    add_message(connection, destination="webhook:7", status="running")

    paused = run("destinations", "pause", "webhook:7", "--reason", " the move ")
    assert row(connection, "webhook:7") == (True, "the move", None, None)
    resumed = run("destinations", "resume", "webhook:7")

    assert (paused.exit_code, paused.output) == (0, "webhook:7 is paused; 1 message is in hand\n")
    assert (resumed.exit_code, resumed.output) == (0, "webhook:7 is resumed\n")
    assert row(connection, "webhook:7") == (False, None, None, None)
    assert run("destinations", "resume", "webhook:7").output == "webhook:7 is not paused\n"
    assert run_json("destinations", "pause", "mail", "--reason", "x") == {
        "destination": "mail",
        "paused": True,
        "in_hand": 0,
    }


def test_a_disabled_endpoint_is_not_resumed(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO outbox_destinations (name, paused_at, pause_reason) VALUES ('webhook:7', now(), 'disabled: 410')"
    )

    ended = run("destinations", "resume", "webhook:7")

    assert (ended.exit_code, "webhooks enable" in ended.output) == (1, True)
    assert row(connection, "webhook:7") == (True, "disabled: 410", None, None)
    assert "disabled for" in run("destinations").output


def test_a_pause_is_never_one_that_resume_does_not_end(connection: Connection) -> None:
    refused = run("destinations", "pause", "mail", "--reason", " disabled: the move")

    assert (refused.exit_code, "webhook endpoints" in refused.output) == (2, True)
    assert row(connection, "mail") in (None, (False, None, None, None))


def test_wait_returns_when_no_message_is_in_hand(connection: Connection) -> None:
    add_message(connection, destination="mail", status="running")
    add_message(connection, destination="webhook:1", status="running")

    def end_it() -> None:
        wait_until(lambda: row(connection, "mail") == (True, "x", None, None), 10, "the pause")
        connection.execute("DELETE FROM outbox WHERE destination = 'mail'")

    with ThreadPoolExecutor() as threads:
        ending = threads.submit(end_it)
        ended = run("destinations", "pause", "mail", "--reason", "x", "--wait")
        ending.result()

    assert ended.exit_code == 0
    assert ended.output.splitlines()[0].startswith("mail is paused; ")
    assert run_json("destinations", "pause", "mail", "--reason", "x")["in_hand"] == 0


def test_ctrl_c_ends_the_wait_and_not_the_pause(connection: Connection, database_url: str) -> None:
    add_message(connection, destination="mail", status="running")
    process = subprocess.Popen(
        [sys.executable, "-m", "outbox_relay", "destinations", "pause", "mail", "--reason", "x", "--wait"],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "DATABASE_URL": database_url},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=10)

    assert (first, rest) == ("mail is paused; 1 message is in hand\n", "1 message is still in hand; the pause stays\n")
    assert process.returncode == 1
    assert row(connection, "mail") == (True, "x", None, None)


def test_a_limit_replaces_the_former_one(connection: Connection) -> None:
    for options in (("--per-second", "0.1", "--in-flight", 3), ("--in-flight", 2)):
        assert run("destinations", "limit", "mail", *options).exit_code == 0
    assert row(connection, "mail") == (False, None, None, 2)

    assert run("destinations", "limit", "mail", "--none").output == "mail has no limit\n"
    assert row(connection, "mail") == (False, None, None, None)
    assert run_json("destinations", "limit", "mail", "--per-second", 5)["max_per_second"] == 5


@pytest.mark.parametrize(
    ("arguments", "explanation"),
    [
        (("pause", "Mail", "--reason", "x"), "lower-case letters"),
        (("pause", "mail\n", "--reason", "x"), "lower-case letters"),
        (("pause", "a" * 65, "--reason", "x"), "at most 64"),
        (("pause", "mail", "--reason", " "), "a few words"),
        (("resume", "-"), "lower-case letters"),
        (("limit", "mail", "--per-second", "0"), "`destinations pause`"),
        (("limit", "mail", "--per-second", "-1"), "`destinations pause`"),
        (("limit", "mail", "--per-second", "1000001"), "from 0.001 to 1000000"),
        (("limit", "mail", "--per-second", "nan"), "from 0.001 to 1000000"),
        (("limit", "mail", "--in-flight", "0"), "1<=x<=1000"),
        (("limit", "mail", "--in-flight", "1000000"), "1<=x<=1000"),
        (("limit", "mail"), "or --none"),
        (("limit", "mail", "--none", "--per-second", "1"), "or --none"),
    ],
)
def test_a_wrong_command_names_the_fix_and_changes_nothing(
    connection: Connection, arguments: tuple[str, ...], explanation: str
) -> None:
    before = connection.execute("SELECT * FROM outbox_destinations").fetchall()

    ended = run("destinations", *arguments)

    assert (ended.exit_code, explanation in ended.output) == (2, True), ended.output
    assert connection.execute("SELECT * FROM outbox_destinations").fetchall() == before
