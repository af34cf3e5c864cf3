"""A backlog: each batch begins where the last one ended, and nothing that lies before that place is forgotten."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from outbox_relay import publishing
from outbox_relay.broker import Broker, BrokerUnavailableError, open_broker
from outbox_relay.publishing import Publisher
from shared.database import DbConnection, connect
from tests.rows import add_message, message, pending_entries_read

BATCH = 50


@pytest.fixture
def connection(database_url: str) -> Iterator[DbConnection]:
    with connect(database_url, "test") as open_connection:
        yield open_connection


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    with closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as open_broker_:
        yield open_broker_


@pytest.fixture
def publisher(broker: Broker) -> Publisher:
    return Publisher(broker, publish_lease_seconds=30, probe_patience_seconds=60)


def add_backlog(connection: DbConnection, batches: int, queue: str = "default") -> None:
    # All are due at the same moment, as whatever one statement appends is.
    connection.execute(
        "INSERT INTO outbox (task, payload, queue) SELECT 't', '{}', %s FROM generate_series(1, %s)",
        [queue, batches * BATCH],
    )


def pending_ids(connection: DbConnection) -> list[int]:
    return [id_ for (id_,) in connection.execute("SELECT id FROM outbox WHERE status = 'pending' ORDER BY id")]


def is_published(connection: DbConnection, message_id: int) -> bool:
    return bool(message(connection, message_id)["status"] == "published")


@pytest.mark.parametrize("queue", ["critical", "default"])
def test_no_batch_walks_over_the_rows_of_the_batches_before_it(
    connection: DbConnection, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, queue: str
) -> None:
    monkeypatch.setattr(publishing, "LOOK_BACK_SECONDS", 3600)
    add_backlog(connection, 10, queue)
    connection.execute("VACUUM ANALYZE outbox")
    before = pending_entries_read(connection)

    published = [publisher.publish_batch(connection, BATCH) for _ in range(10)]

    assert published == [BATCH] * 10
    assert pending_entries_read(connection) - before < 1.2 * sum(published)


def test_a_message_committed_before_the_place_goes_at_the_next_look_back(
    connection: DbConnection, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "LOOK_BACK_SECONDS", 3600)
    add_backlog(connection, 4)
    publisher.publish_batch(connection, BATCH)
    late = add_message(connection, due_at="2020-01-01T00:00:00Z")

    publisher.publish_batch(connection, BATCH)
    passed_over = not is_published(connection, late)
    publisher._look_back_at = 0.0  # noqa: SLF001 - the time has come
    publisher.publish_batch(connection, BATCH)

    assert (passed_over, is_published(connection, late)) == (True, True)


def test_a_message_committed_before_the_place_goes_at_the_end_of_the_backlog(
    connection: DbConnection, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "LOOK_BACK_SECONDS", 3600)
    add_backlog(connection, 1)
    publisher.publish_batch(connection, BATCH)
    late = add_message(connection, due_at="2020-01-01T00:00:00Z")

    assert publisher.publish_batch(connection, BATCH) == 1
    assert is_published(connection, late)


def test_critical_is_seen_whole_beside_a_backlog_of_default(connection: DbConnection, publisher: Publisher) -> None:
    add_backlog(connection, 3)
    add_message(connection, queue="critical")
    publisher.publish_batch(connection, BATCH)
    late = add_message(connection, queue="critical", due_at="2020-01-01T00:00:00Z")

    publisher.publish_batch(connection, BATCH)

    assert is_published(connection, late)


def test_a_batch_that_was_rolled_back_is_the_next_one_again(
    connection: DbConnection, publisher: Publisher, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "LOOK_BACK_SECONDS", 3600)
    add_backlog(connection, 3)
    all_ids = pending_ids(connection)
    publisher.publish_batch(connection, BATCH)
    with Redis.from_url(redis_url) as client:
        client.rename("rq:queue:default", "elsewhere")
        client.set("rq:queue:default", "no list, so that the push fails")
        with pytest.raises(BrokerUnavailableError):
            publisher.publish_batch(connection, BATCH)
        client.delete("rq:queue:default")

    publisher.publish_batch(connection, BATCH)

    assert pending_ids(connection) == all_ids[2 * BATCH :]
