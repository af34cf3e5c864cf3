"""Each batch begins where the last ones ended, and nothing that comes before its start is forgotten."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis

from outbox_relay.broker import BrokerUnavailableError
from outbox_relay.loop import publisher as publishing
from outbox_relay.loop.pacing import LOOKING_SHARE
from outbox_relay.loop.publisher import Publisher
from shared.database.connections import DbConnection, connect
from shared.outbox import publishing as statements
from tests.rows import add_message, message, pending_entries_read

BATCH = 50


@pytest.fixture
def no_look_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first look, which is one from the beginning."""
    monkeypatch.setattr(publishing, "LOOK_BACK_SECONDS", 3600)


def add_backlog(connection: DbConnection, batches: int, queue: str = "default", seconds_ago: int = 0) -> None:
    # All are due at the same moment, as whatever one statement appends is.
    connection.execute(
        """
        INSERT INTO outbox (task, payload, queue, due_at)
        SELECT 't', '{}', %s, now() - make_interval(secs => %s) FROM generate_series(1, %s)
        """,
        [queue, seconds_ago, batches * BATCH],
    )
    connection.execute("VACUUM ANALYZE outbox")


@contextmanager
def old_snapshot(database_url: str) -> Iterator[None]:
    """Hold a snapshot of now, as a long report does: no vacuum takes away what is visible to it."""
    with connect(database_url, "a report") as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT FROM outbox")
        yield


def pending_ids(connection: DbConnection) -> list[int]:
    return [id_ for (id_,) in connection.execute("SELECT id FROM outbox WHERE status = 'pending' ORDER BY id")]


def add_late(connection: DbConnection, queue: str = "default") -> int:
    """Write a message whose transaction takes five seconds."""
    return add_late_by(connection, 5, queue)


def add_late_by(connection: DbConnection, seconds: float, queue: str = "default") -> int:
    """Write a message whose transaction takes so long."""
    [(id_,)] = connection.execute(
        """
        INSERT INTO outbox (task, payload, queue, due_at) VALUES ('t', '{}', %s, now() - make_interval(secs => %s))
        RETURNING id
        """,
        [queue, seconds],
    )
    return int(id_)


def is_published(connection: DbConnection, message_id: int) -> bool:
    return bool(message(connection, message_id)["status"] == "published")


@pytest.mark.parametrize("queue", ["critical", "default"])
@pytest.mark.usefixtures("no_look_back")
def test_no_batch_walks_over_the_rows_of_the_batches_before_it(
    connection: DbConnection, publisher: Publisher, queue: str
) -> None:
    add_backlog(connection, 10, queue)
    before = pending_entries_read(connection)

    published = [publisher.publish_batch(connection, BATCH) for _ in range(10)]

    assert published == [BATCH] * 10
    assert pending_entries_read(connection) - before < 1.2 * sum(published)


@pytest.mark.usefixtures("no_look_back")
def test_what_was_published_long_ago_is_not_walked_over_beside_an_old_snapshot(
    connection: DbConnection, publisher: Publisher, database_url: str
) -> None:
    with old_snapshot(database_url):
        add_backlog(connection, 10, seconds_ago=60)
        add_message(connection)
        while publisher.publish_batch(connection, BATCH) == BATCH:
            pass
        before = pending_entries_read(connection)

        for _ in range(5):
            add_message(connection)
            assert publisher.publish_batch(connection, BATCH) == 1
            publisher.next_due(connection)

        assert pending_entries_read(connection) - before < BATCH


@pytest.mark.usefixtures("no_look_back")
def test_a_backlog_of_both_queues_is_walked_over_once(connection: DbConnection, publisher: Publisher) -> None:
    add_backlog(connection, 9, "critical", seconds_ago=60)
    add_backlog(connection, 1, "default", seconds_ago=60)
    before = pending_entries_read(connection)

    published = [publisher.publish_batch(connection, BATCH) for _ in range(10)]

    # The look for default rows that have waited for too long reads one more in each batch.
    assert published == [BATCH] * 10
    assert pending_entries_read(connection) - before < 1.3 * sum(published)


@pytest.mark.usefixtures("no_look_back")
def test_a_backlog_of_critical_is_gone_on_with_where_default_does_not_use_its_share(
    connection: DbConnection, publisher: Publisher
) -> None:
    add_backlog(connection, 4, "critical", seconds_ago=60)
    for _ in range(2):
        add_late_by(connection, 60)
    share = statements.share_of_default(BATCH)

    first = publisher.publish_batch(connection, BATCH)
    has_more = publisher.has_more
    others = [publisher.publish_batch(connection, BATCH) for _ in range(4)]

    assert (first, has_more) == (BATCH - share + 2, True)
    assert others == [BATCH, BATCH, BATCH, share]
    assert not publisher.has_more


@pytest.mark.usefixtures("no_look_back")
def test_a_relay_that_found_nothing_does_not_walk_over_it_again(
    connection: DbConnection, publisher: Publisher, database_url: str
) -> None:
    with old_snapshot(database_url):
        add_backlog(connection, 4, seconds_ago=60)
        connection.execute("DELETE FROM outbox")
        publisher.publish_batch(connection, BATCH)
        before = pending_entries_read(connection)

        publisher.publish_batch(connection, BATCH)
        publisher.next_due(connection)

        assert pending_entries_read(connection) - before < BATCH


@pytest.mark.usefixtures("no_look_back")
def test_batches_of_one_pass_over_nothing_that_was_committed_a_little_late(
    connection: DbConnection, publisher: Publisher
) -> None:
    add_message(connection)
    published = [publisher.publish_batch(connection, 1) for _ in range(2)]
    add_late(connection)

    assert [*published, publisher.publish_batch(connection, 1)] == [1, 0, 1]


@pytest.mark.usefixtures("no_look_back")
def test_a_message_committed_before_the_start_goes_at_the_next_look_back(
    connection: DbConnection, publisher: Publisher
) -> None:
    add_backlog(connection, 4)
    publisher.publish_batch(connection, BATCH)
    late = add_message(connection, due_at="2020-01-01T00:00:00Z")

    publisher.publish_batch(connection, BATCH)
    passed_over = not is_published(connection, late)
    publisher.look_back()
    publisher.publish_batch(connection, BATCH)

    assert (passed_over, is_published(connection, late)) == (True, True)


@pytest.mark.usefixtures("no_look_back")
def test_a_message_committed_a_little_late_goes_with_the_next_batch(
    connection: DbConnection, publisher: Publisher
) -> None:
    add_message(connection)
    publisher.publish_batch(connection, BATCH)
    add_late(connection)

    assert publisher.publish_batch(connection, BATCH) == 1


def test_the_relay_sleeps_no_longer_than_until_the_next_look_back(
    connection: DbConnection, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "LOOK_BACK_SECONDS", 60)
    due = []
    for _ in range(2):
        add_message(connection)
        publisher.publish_batch(connection, BATCH)
        due.append(publisher.next_due(connection))

    assert due == [None, pytest.approx(60, abs=5)]


@pytest.mark.usefixtures("no_look_back")
def test_what_waits_for_a_probe_is_seen_when_the_relay_looks_back(
    connection: DbConnection, publisher: Publisher
) -> None:
    add_message(connection)
    publisher.publish_batch(connection, BATCH)
    add_message(connection, due_at="2020-01-01T00:00:00Z")
    connection.execute("UPDATE outbox_breaker SET opened_at = now(), probe_at = now() + interval '30 s'")
    publisher.look_back()

    published = publisher.publish_batch(connection, BATCH)

    assert (published, publisher.next_due(connection)) == (0, pytest.approx(30, abs=5))


@pytest.mark.usefixtures("no_look_back")
def test_what_waited_for_the_mail_server_goes_as_soon_as_it_is_back(
    connection: DbConnection, publisher: Publisher
) -> None:
    add_backlog(connection, 1, seconds_ago=60)
    connection.execute("UPDATE outbox_breaker SET opened_at = now(), probe_at = now() + interval '1 hour'")
    while_away = publisher.publish_batch(connection, BATCH)
    connection.execute("UPDATE outbox_breaker SET opened_at = NULL, probe_at = NULL")

    assert (while_away, publisher.publish_batch(connection, BATCH)) == (0, BATCH)


@pytest.mark.parametrize("slow", ["take_batch", "next_due"])
def test_looks_back_take_no_more_than_their_share_of_the_time(
    connection: DbConnection, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    monkeypatch.setattr(publishing, "LOOK_BACK_SECONDS", 0)
    original = getattr(statements, slow)

    def slowly(*arguments: object) -> object:
        if publisher.looked_back:
            time.sleep(0.02)
        return original(*arguments)

    monkeypatch.setattr(statements, slow, slowly)
    began = time.monotonic()
    looks: list[bool] = []
    while looks.count(True) < 2:
        publisher.publish_batch(connection, BATCH)
        looks.append(publisher.looked_back)
        publisher.next_due(connection)

    assert looks.count(False) > 1
    assert time.monotonic() - began >= 0.02 / LOOKING_SHARE


def test_critical_that_comes_a_little_late_goes_before_a_backlog_of_default(
    connection: DbConnection, publisher: Publisher
) -> None:
    add_backlog(connection, 3)
    add_message(connection, queue="critical")
    publisher.publish_batch(connection, BATCH)
    late = add_late(connection, "critical")

    publisher.publish_batch(connection, BATCH)

    assert is_published(connection, late)


@pytest.mark.usefixtures("no_look_back")
def test_a_batch_that_was_rolled_back_is_the_next_one_again(
    connection: DbConnection, publisher: Publisher, emptiable_redis_url: str
) -> None:
    add_backlog(connection, 3)
    all_ids = pending_ids(connection)
    publisher.publish_batch(connection, BATCH)
    with Redis.from_url(emptiable_redis_url) as client:
        client.config_set("min-replicas-to-write", "1")
        try:
            with pytest.raises(BrokerUnavailableError):
                publisher.publish_batch(connection, BATCH)
        finally:
            client.config_set("min-replicas-to-write", "0")

    publisher.publish_batch(connection, BATCH)

    assert pending_ids(connection) == all_ids[2 * BATCH :]
