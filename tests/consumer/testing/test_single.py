"""One message, run through its task: what a worker would refuse is raised."""

from typing import Any

import psycopg
import pytest

from consumer.task import Discarded, Done, Mail, RetryAfter, Undeliverable
from shared.database.connections import DbConnection
from shared.outbox.messages import SendVerifyEmail
from shared.settings.parsing import parse_secret_keys
from shared.testing import MessageRun, run_message
from tests.consumer.testing.odd_tasks import Handled, Prepared, Unknown
from tests.rows import add_user

TASKS = "tests.consumer.testing.odd_tasks"


def run(work: str, connection: Any, kind: type[Prepared] | type[Handled] = Prepared) -> MessageRun:
    return run_message(kind(work), TASKS, connection=connection)


@pytest.mark.parametrize(("work", "returned"), [("nothing", Done()), ("discard", Discarded("nobody needs it"))])
def test_what_prepare_returns_is_returned(work: str, returned: object) -> None:
    assert run(work, None) == MessageRun(returned, [])


@pytest.mark.parametrize(
    ("work", "error", "text"),
    [
        ("commit", psycopg.ProgrammingError, "commit is refused"),
        ("COMMIT", RuntimeError, "the task ended the transaction itself"),
        ("forget", TypeError, "returned nothing for this message"),
        ("return nothing", TypeError, "in place of a mapping"),
        ("return a text", TypeError, "it has to be Mail, Webhook, Done"),
    ],
)
def test_a_mistake_of_prepare_is_raised(connection: DbConnection, work: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(work, connection)


def test_prepare_works_in_the_transaction_of_the_test(connection: DbConnection) -> None:
    with connection.transaction(force_rollback=True):
        assert run("savepoint", connection) == MessageRun(Done(), [])
        assert run("append", connection) == MessageRun(Done(), [Handled("nothing")])
        assert connection.execute("SELECT payload FROM outbox").fetchall() == [({"work": "nothing"},)]
    assert connection.execute("SELECT FROM outbox").rowcount == 0


def test_a_task_that_needs_a_connection_says_so() -> None:
    with pytest.raises(RuntimeError, match="pass connection="):
        run("savepoint", None)
    with pytest.raises(RuntimeError, match="pass connect="):
        run("read", None, Handled)


def test_a_message_that_no_module_lists_is_refused() -> None:
    with pytest.raises(LookupError, match="odd:unknown"):
        run_message(Unknown(), TASKS)


@pytest.mark.parametrize(
    ("work", "error", "text"),
    [
        ("return a mail", TypeError, "which only `prepare` may return"),
        ("yield", TypeError, "a coroutine or a generator"),
        ("append too much", ValueError, "larger than"),
        ("retry", RetryAfter, "later"),
        ("refuse", Undeliverable, "never"),
        ("fail", KeyError, "fail"),
    ],
)
def test_what_a_handler_raises_or_does_wrong_is_raised(work: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(work, None, Handled)


def test_what_a_handler_returns_is_returned() -> None:
    assert run("return Done()", None, Handled).returned == Done()


def test_a_handler_has_a_context(database_url: str) -> None:
    appended = run_message(Handled("append"), TASKS, attempt=3)
    read = run_message(Handled("read"), TASKS, connect=lambda: psycopg.connect(database_url))

    assert appended == MessageRun((3, 1, 36, True), [Handled("append once more")])
    assert read.returned == (1,)


def test_a_transaction_that_a_handler_leaves_open_is_an_error(database_url: str) -> None:
    with pytest.raises(RuntimeError, match="left a transaction open"):
        run_message(Handled("leak"), TASKS, connect=lambda: psycopg.connect(database_url))


def test_the_site_is_that_of_the_test(connection: DbConnection) -> None:
    add_user(connection)

    run = run_message(
        SendVerifyEmail("alice"), connection=connection, base_url="https://shop.example", secret_key="s" * 32
    )

    assert isinstance(run.returned, Mail)
    assert str(run.returned.values["link"]).startswith("https://shop.example/")
    assert parse_secret_keys("the secret key of tests: not for use")
