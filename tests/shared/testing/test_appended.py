"""What shared.testing finds in a transaction, for each kind of connection."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.orm import Session

from shared.outbox import append
from shared.outbox.messages import SendVerifyEmail, SendWelcomeEmail
from shared.testing import appended, assert_appended

ALICE = SendVerifyEmail(username="alice")

Begin = Callable[[Engine], AbstractContextManager[Connection | Session]]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


@contextmanager
def begun_connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@contextmanager
def begun_session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.mark.parametrize("begin", [begun_connection, begun_session])
def test_a_message_is_found_in_the_transaction_that_has_appended_it(engine: Engine, begin: Begin) -> None:
    with begin(engine) as connection:
        append(connection, SendWelcomeEmail(username="before"))
        connection.commit()
        append(connection, ALICE, delay_seconds=90, dedup_key="k")
        with connection.begin_nested():
            append(connection, SendWelcomeEmail(username="bob"))
        rolled_back = connection.begin_nested()
        append(connection, SendWelcomeEmail(username="carol"))
        rolled_back.rollback()

        alice = assert_appended(connection, ALICE)
        assert (alice.queue, alice.destination, alice.dedup_key, alice.delay_seconds) == ("critical", "mail", "k", 90)
        assert [each.payload["username"] for each in appended(connection)] == ["alice", "bob"]
        assert [each.payload["username"] for each in appended(connection, SendWelcomeEmail)] == ["bob"]
        connection.commit()
        assert appended(connection) == []


def insert(connection: psycopg.Connection[Any], username: str) -> None:
    connection.execute(
        "INSERT INTO outbox (task, payload) VALUES (%s, jsonb_build_object('username', %s::text))",
        [SendVerifyEmail.task, username],
    )


def test_a_message_that_was_appended_in_sql_is_found_by_psycopg(database_url: str) -> None:
    with psycopg.connect(database_url) as connection, psycopg.connect(database_url) as other:
        insert(other, "bob")
        insert(connection, "alice")
        with connection.transaction():
            insert(connection, "carol")
        other.commit()

        assert_appended(connection, ALICE)
        assert [each.payload["username"] for each in appended(connection)] == ["alice", "carol"]
        connection.rollback()
        assert appended(connection) == []


def test_an_append_that_became_part_of_another_is_found(engine: Engine) -> None:
    with engine.begin() as connection:
        append(connection, SendVerifyEmail(username="bob"), dedup_key="k")
    with engine.begin() as connection:
        append(connection, ALICE, dedup_key="k")

        assert_appended(connection, ALICE)


def test_an_assertion_that_fails_says_what_was_appended(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(AssertionError, match=r"was not appended.*\nIt has appended nothing"):
            assert_appended(connection, ALICE)
        append(connection, SendVerifyEmail(username="bob"))
        with pytest.raises(AssertionError, match=r'task:send_verify_email \{"username": "bob"\}'):
            assert_appended(connection, ALICE)
        append(connection, ALICE)
        append(connection, ALICE)
        with pytest.raises(AssertionError, match="more than once"):
            assert_appended(connection, ALICE)


def test_nothing_is_found_in_autocommit_mode(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        insert(connection, "alice")

        assert appended(connection) == []
