from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, literal, select
from sqlalchemy.orm import Session

from shared.outbox.appending import append, append_for_each
from shared.outbox.messages import SendVerifyEmail, SendWelcomeEmail
from shared.outbox.tables import outbox

MESSAGE = SendVerifyEmail(username="alice")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def messages(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(select(outbox.c.task, outbox.c.queue, outbox.c.payload, outbox.c.status))
        return [tuple(row) for row in rows]


def test_a_committed_message_is_pending(engine: Engine) -> None:
    with engine.begin() as connection:
        append(connection, MESSAGE)

    assert messages(engine) == [("task:send_verify_email", "critical", {"username": "alice"}, "pending")]


def test_a_rolled_back_transaction_leaves_no_message(engine: Engine) -> None:
    with engine.connect() as connection:
        append(connection, MESSAGE)
        connection.rollback()

    assert messages(engine) == []


def test_a_session_s_message_shares_its_fate(engine: Engine) -> None:
    with Session(engine) as session:
        append(session, MESSAGE)
        session.rollback()
        append(session, SendWelcomeEmail(username="bob"))
        session.commit()

    assert messages(engine) == [("task:send_welcome_email", "default", {"username": "bob"}, "pending")]


def test_append_returns_the_message_s_id(engine: Engine) -> None:
    with engine.begin() as connection:
        first, second = append(connection, MESSAGE), append(connection, MESSAGE)

    assert ids(engine) == [first, second]


def ids(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(select(outbox.c.id).order_by(outbox.c.id)).scalars())


def test_a_delayed_message_is_due_later(engine: Engine) -> None:
    with engine.begin() as connection:
        append(connection, MESSAGE, delay_seconds=90.5)

    assert seconds_until_due(engine) == 90.5


def seconds_until_due(engine: Engine) -> float:
    with engine.connect() as connection:
        wait = connection.execute(select(outbox.c.due_at - outbox.c.created_at)).scalar_one()
        return float(wait.total_seconds())


@pytest.mark.parametrize(
    ("names", "payload"),
    [(["who"], {"who": 'A "quoted" name'}), (["who", "days"], {"who": 'A "quoted" name', "days": 3})],
    ids=["text alone", "text and a number"],
)
def test_each_row_of_a_source_becomes_a_message(engine: Engine, names: list[str], payload: dict[str, object]) -> None:
    source = select(literal('A "quoted" name').label("who"), literal(3).label("days")).cte("source")

    with engine.begin() as connection:
        connection.execute(append_for_each(source, SendWelcomeEmail, {name: source.c[name] for name in names}))

    assert messages(engine) == [("task:send_welcome_email", "default", payload, "pending")]
