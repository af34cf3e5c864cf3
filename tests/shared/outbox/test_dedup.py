"""Appends with a dedup key, alone and beside other transactions that have the row."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, Text, column, create_engine, select, values

from shared.database.connections import DbConnection, connect
from shared.outbox import publishing
from shared.outbox.appending import append, append_for_each
from shared.outbox.claiming import claims, releases
from shared.outbox.claiming.claims import Claim
from shared.outbox.messages import SendVerifyEmail, SendWelcomeEmail
from shared.outbox.operations import dead_letters
from shared.outbox.tables import outbox
from shared.testing import run_due
from tests.rows import add_user, message
from tests.waiting import wait_until

KEY = "order 7"
HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "append-in-sql.md"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def append_one(engine: Engine, username: str, *, delay_seconds: float = 0, key: str | None = KEY) -> int:
    with engine.begin() as connection:
        return append(connection, SendVerifyEmail(username=username), delay_seconds=delay_seconds, dedup_key=key)


def usernames(connection: DbConnection) -> list[str]:
    rows = connection.execute("SELECT payload ->> 'username' FROM outbox ORDER BY id").fetchall()
    return [row[0] for row in rows]


def claim_one(connection: DbConnection, id_: int) -> Claim:
    [claimed] = claims.claim(connection, [id_], uuid4(), 60)
    return claimed


@contextmanager
def beside(connection: DbConnection, job: Callable[[], int]) -> Iterator["Future[int]"]:
    """Start the job while the connection's transaction is open, and yield when it waits for a lock."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(job)
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_until(lambda: connection.execute(waiting).rowcount == 1, 10, "the job to wait for a lock")
        yield future


@pytest.mark.parametrize(("first", "second"), [(90, 30), (30, 90)])
def test_a_second_append_gives_its_payload_and_the_earlier_time_to_the_first(
    engine: Engine, connection: DbConnection, first: float, second: float
) -> None:
    ids = [
        append_one(engine, "alice", delay_seconds=first),
        append_one(engine, "bob", delay_seconds=second),
    ]

    assert ids == [ids[0]] * 2
    assert usernames(connection) == ["bob"]
    due = connection.execute("SELECT extract(epoch FROM due_at - created_at)::float8 FROM outbox").fetchone()
    assert due == (pytest.approx(30, abs=10),)


def test_other_tasks_other_keys_and_no_key_are_messages_of_their_own(engine: Engine, connection: DbConnection) -> None:
    append_one(engine, "alice")
    append_one(engine, "bob", key="order 8")
    append_one(engine, "carol", key=None)
    append_one(engine, "dave", key=None)
    with engine.begin() as other:
        append(other, SendWelcomeEmail(username="erin"), dedup_key=KEY)

    assert usernames(connection) == ["alice", "bob", "carol", "dave", "erin"]


def test_a_rolled_back_append_changes_nothing(engine: Engine, connection: DbConnection) -> None:
    append_one(engine, "alice")
    with engine.connect() as other:
        append(other, SendVerifyEmail(username="bob"), dedup_key=KEY)
        other.rollback()

    assert usernames(connection) == ["alice"]


@pytest.mark.parametrize("key", ["", "x" * 201, "\u00e9" * 101])
def test_a_key_that_is_empty_or_too_long_is_refused(engine: Engine, key: str) -> None:
    with pytest.raises(ValueError, match="1 to 200 bytes"):
        append_one(engine, "alice", key=key)


def test_a_key_of_200_bytes_is_taken(engine: Engine, connection: DbConnection) -> None:
    assert append_one(engine, "alice", key="\u00e9" * 100) == append_one(engine, "bob", key="\u00e9" * 100)
    assert usernames(connection) == ["bob"]


@pytest.mark.parametrize(("end", "expected"), [("COMMIT", ["alice", "bob"]), ("ROLLBACK", ["bob"])])
def test_an_append_beside_a_claim_waits_for_its_end(
    engine: Engine, connection: DbConnection, end: str, expected: list[str]
) -> None:
    first = append_one(engine, "alice")
    connection.execute("BEGIN")
    claimed = claim_one(connection, first)
    with beside(connection, lambda: append_one(engine, "bob")) as second:
        connection.execute(end.encode())

        assert (second.result(timeout=10) == first) == (end == "ROLLBACK")
    assert claimed.payload == '{"username": "alice"}'
    assert usernames(connection) == expected


@pytest.mark.parametrize(("end", "expected"), [("commit", "bob"), ("rollback", "alice")])
def test_a_claim_beside_an_append_waits_and_reads_what_was_committed(
    engine: Engine, database_url: str, connection: DbConnection, end: str, expected: str
) -> None:
    first = append_one(engine, "alice")
    payloads = []

    def claim() -> int:
        with connect(database_url, "worker") as worker:
            claimed = claim_one(worker, first)
            payloads.append(claimed.payload)
            return claimed.id

    with engine.connect() as writer:
        append(writer, SendVerifyEmail(username="bob"), dedup_key=KEY)
        with beside(connection, claim) as claimed:
            getattr(writer, end)()
            assert claimed.result(timeout=10) == first
    assert payloads == [f'{{"username": "{expected}"}}']


@pytest.mark.parametrize(("end", "expected"), [("commit", ["bob"]), ("rollback", ["bob"])])
def test_two_appends_at_once_are_one_message(
    engine: Engine, connection: DbConnection, end: str, expected: list[str]
) -> None:
    with engine.connect() as writer:
        first = append(writer, SendVerifyEmail(username="alice"), dedup_key=KEY)
        with beside(connection, lambda: append_one(engine, "bob")) as second:
            getattr(writer, end)()
            assert (second.result(timeout=10) == first) == (end == "commit")
    assert usernames(connection) == expected


def test_an_append_beside_the_relay_s_push_becomes_part_of_what_was_pushed(
    engine: Engine, connection: DbConnection
) -> None:
    first = append_one(engine, "alice")
    connection.execute("BEGIN")
    connection.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [first])
    publishing.mark_published(connection, [first], "epoch", 30)
    with beside(connection, lambda: append_one(engine, "bob")) as second:
        connection.execute("COMMIT")
        assert second.result(timeout=10) == first

    row = message(connection, first)
    assert (row["status"], row["generation"]) == ("published", 0)
    assert claim_one(connection, first).payload == '{"username": "bob"}'


def test_what_is_sent_is_the_newer_payload(engine: Engine, connection: DbConnection, database_url: str) -> None:
    for username in ("alice", "bob"):
        add_user(connection, username)
        append_one(engine, username)

    run = run_due(database_url)

    assert [(each.status, each.payload) for each in run.messages] == [("done", {"username": "bob"})]
    assert [mail.recipient for mail in run.mails] == ["bob@example.com"]


def test_the_first_claim_frees_the_key_for_good(engine: Engine, connection: DbConnection) -> None:
    """A message that was released, failed or is a dead letter has been claimed: the next append is one of its own."""
    ids = [append_one(engine, "alice")]
    released = claim_one(connection, ids[0])
    ids.append(append_one(engine, "bob"))
    releases.release(connection, [released], "paused")
    dead = claim_one(connection, ids[1])
    claims.fail(connection, dead, "a reason", details={}, delay_seconds=0, is_dead=True)
    ids.append(append_one(engine, "carol"))
    dead_letters.retry(connection, ids[1])

    assert append_one(engine, "dave") == ids[2]
    assert usernames(connection) == ["alice", "bob", "dave"]
    assert {message(connection, id_)["status"] for id_ in ids} == {"pending"}


def test_the_documented_statement_does_what_append_does(engine: Engine, connection: DbConnection) -> None:
    [statement] = re.findall(r"^```sql\n(.*?)^```", HOW_TO.read_text(), re.MULTILINE | re.DOTALL)

    ids = [connection.execute(statement.encode()).fetchall() for _ in range(2)]
    ids.append([(append_one(engine, "bob", key="account grace"),)])

    assert ids == [ids[0]] * 3
    assert usernames(connection) == ["bob"]


def append_rows(engine: Engine, rows: list[tuple[str, str | None]]) -> list[str | None]:
    """Append a message for each row in one statement, and return the keys in the order in which they were written."""
    source = values(column("username", Text), column("key", Text), name="source").data(rows)
    appended = append_for_each(source, SendVerifyEmail, {"username": source.c.username}, dedup_key=source.c.key)
    with engine.begin() as connection:
        return list(connection.execute(appended.returning(column("dedup_key", Text))).scalars())


def test_rows_of_one_statement_become_one_message_for_each_key_in_their_order(
    engine: Engine, connection: DbConnection
) -> None:
    append_one(engine, "waits", key="c")

    written = append_rows(
        engine, [("alice", "c"), ("bob", "B"), ("carol", None), ("dave", "a"), ("erin", "a"), ("frank", None)]
    )

    assert written == ["B", "a", "c", None, None]
    names = usernames(connection)
    assert set(names) in ({"alice", "bob", "carol", "dave", "frank"}, {"alice", "bob", "carol", "erin", "frank"})
    assert (len(names), names[0]) == (5, "alice")


def test_a_snapshot_of_before_the_other_append_is_refused(engine: Engine, connection: DbConnection) -> None:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as old:
        old.execute(select(outbox.c.id))
        append_one(engine, "alice")
        with pytest.raises(Exception, match="could not serialize") as caught:
            append(old, SendVerifyEmail(username="bob"), dedup_key=KEY)

    assert isinstance(caught.value.__cause__, psycopg.errors.SerializationFailure)
    assert usernames(connection) == ["alice"]
