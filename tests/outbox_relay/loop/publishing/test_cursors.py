"""Each batch begins where the last ones ended, and nothing that comes before its cursor is lost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from outbox_relay.broker import Broker, BrokerUnavailableError
from outbox_relay.loop.pacing import POLLING_SHARE
from outbox_relay.loop.publishing.publisher import Publisher
from shared.database.connections import DbConnection, connect
from shared.outbox import discovery, publishing
from shared.outbox.discovery import Discovered
from tests.outbox_relay.loop.publishing.publishers import publisher_to
from tests.rows import add_message, message, open_breaker, pending_entries_read

BATCH = 50


NO_RESCAN = 3600.0
"""After the first scan, which begins at the start of the queues."""


@pytest.fixture
def no_rescans(broker: Broker) -> Publisher:
    return publisher_to(broker, rescan_seconds=NO_RESCAN)


def add_backlog(connection: DbConnection, batches: int, queue: str = "default", seconds_ago: int = 0) -> None:
    # All are due at the same moment, as whatever one statement appends is.
    connection.execute(
        """
        INSERT INTO outbox (task, payload, queue, destination, due_at)
        SELECT 't', '{}', %s, 'mail', now() - make_interval(secs => %s) FROM generate_series(1, %s)
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
        INSERT INTO outbox (task, payload, queue, destination, due_at)
        VALUES ('t', '{}', %s, 'mail', now() - make_interval(secs => %s))
        RETURNING id
        """,
        [queue, seconds],
    )
    return int(id_)


def is_published(connection: DbConnection, message_id: int) -> bool:
    return bool(message(connection, message_id)["status"] == "published")


@pytest.mark.parametrize("queue", ["critical", "default"])
def test_no_batch_reads_the_rows_of_the_batches_before_it(
    connection: DbConnection, no_rescans: Publisher, queue: str
) -> None:
    add_backlog(connection, 10, queue)
    before = pending_entries_read(connection)

    published = [no_rescans.publish_batch(connection, BATCH) for _ in range(10)]

    assert published == [BATCH] * 10
    assert pending_entries_read(connection) - before < 1.2 * sum(published)


def test_what_was_published_long_ago_is_not_read_beside_an_old_snapshot(
    connection: DbConnection, no_rescans: Publisher, database_url: str
) -> None:
    with old_snapshot(database_url):
        add_backlog(connection, 10, seconds_ago=60)
        add_message(connection)
        while no_rescans.publish_batch(connection, BATCH) == BATCH:
            pass
        before = pending_entries_read(connection)

        for _ in range(5):
            add_message(connection)
            assert no_rescans.publish_batch(connection, BATCH) == 1
            no_rescans.next_due(connection)

        assert pending_entries_read(connection) - before < BATCH


def test_a_backlog_of_both_queues_is_read_once(connection: DbConnection, no_rescans: Publisher) -> None:
    add_backlog(connection, 9, "critical", seconds_ago=60)
    add_backlog(connection, 1, "default", seconds_ago=60)
    before = pending_entries_read(connection)

    published = [no_rescans.publish_batch(connection, BATCH) for _ in range(10)]

    # The look for default rows that have waited for too long reads one more in each batch.
    assert published == [BATCH] * 10
    assert pending_entries_read(connection) - before < 1.3 * sum(published)


def test_a_backlog_of_critical_continues_where_default_does_not_use_its_reserved_rows(
    connection: DbConnection, no_rescans: Publisher
) -> None:
    add_backlog(connection, 4, "critical", seconds_ago=60)
    for _ in range(2):
        add_late_by(connection, 60)
    reserved = publishing.reserved_for_default(BATCH)

    first = no_rescans.publish_batch(connection, BATCH)
    has_more = no_rescans.has_more
    others = [no_rescans.publish_batch(connection, BATCH) for _ in range(4)]

    assert (first, has_more) == (BATCH - reserved + 2, True)
    assert others == [BATCH, BATCH, BATCH, reserved]
    assert not no_rescans.has_more


def test_a_relay_that_found_nothing_does_not_walk_over_it_again(
    connection: DbConnection, no_rescans: Publisher, database_url: str
) -> None:
    with old_snapshot(database_url):
        add_backlog(connection, 4, seconds_ago=60)
        connection.execute("DELETE FROM outbox")
        no_rescans.publish_batch(connection, BATCH)
        before = pending_entries_read(connection)

        no_rescans.publish_batch(connection, BATCH)
        no_rescans.next_due(connection)

        assert pending_entries_read(connection) - before < BATCH


def test_batches_of_one_pass_over_nothing_that_was_committed_a_little_late(
    connection: DbConnection, no_rescans: Publisher
) -> None:
    add_message(connection)
    published = [no_rescans.publish_batch(connection, 1) for _ in range(2)]
    add_late(connection)

    assert [*published, no_rescans.publish_batch(connection, 1)] == [1, 0, 1]


def test_a_message_committed_before_the_cursor_goes_at_the_next_rescan(
    connection: DbConnection, no_rescans: Publisher
) -> None:
    add_backlog(connection, 4)
    no_rescans.publish_batch(connection, BATCH)
    late = add_message(connection, due_at="2020-01-01T00:00:00Z")

    no_rescans.publish_batch(connection, BATCH)
    passed_over = not is_published(connection, late)
    no_rescans.rescan()
    no_rescans.publish_batch(connection, BATCH)

    assert (passed_over, is_published(connection, late)) == (True, True)


def test_a_message_committed_a_little_late_goes_with_the_next_batch(
    connection: DbConnection, no_rescans: Publisher
) -> None:
    add_message(connection)
    no_rescans.publish_batch(connection, BATCH)
    add_late(connection)

    assert no_rescans.publish_batch(connection, BATCH) == 1


def test_the_relay_sleeps_no_longer_than_until_the_next_rescan(connection: DbConnection, broker: Broker) -> None:
    publisher = publisher_to(broker, rescan_seconds=60)
    due = []
    for due_at in (datetime.now(UTC), datetime.now(UTC), datetime.now(UTC) + timedelta(hours=1)):
        add_message(connection, due_at=due_at)
        publisher.publish_batch(connection, BATCH)
        due.append(publisher.next_due(connection))

    assert due == [None, pytest.approx(60, abs=5), pytest.approx(60, abs=5)]


def test_what_waits_for_a_probe_is_found_by_a_rescan(connection: DbConnection, no_rescans: Publisher) -> None:
    add_message(connection)
    no_rescans.publish_batch(connection, BATCH)
    add_message(connection, due_at="2020-01-01T00:00:00Z")
    open_breaker(connection, probe_in_seconds=30)
    no_rescans.rescan()

    published = no_rescans.publish_batch(connection, BATCH)

    assert (published, no_rescans.next_due(connection)) == (0, pytest.approx(30, abs=5))


def test_what_waited_for_the_mail_server_goes_as_soon_as_it_is_back(
    connection: DbConnection, no_rescans: Publisher
) -> None:
    add_backlog(connection, 1, seconds_ago=60)
    open_breaker(connection, probe_in_seconds=3600)
    while_away = no_rescans.publish_batch(connection, BATCH)
    connection.execute("UPDATE outbox_destinations SET opened_at = NULL, probe_at = NULL")

    assert (while_away, no_rescans.publish_batch(connection, BATCH)) == (0, BATCH)


def test_rescans_take_no_more_than_their_share_of_the_time(
    connection: DbConnection, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = publisher_to(broker, rescan_seconds=0)
    original = discovery.discover

    def slowly(*arguments: Any) -> Discovered:
        if publisher.rescanned:
            time.sleep(0.02)
        return original(*arguments)

    monkeypatch.setattr(discovery, "discover", slowly)
    began = time.monotonic()
    rescans: list[bool] = []
    while rescans.count(True) < 2:
        publisher.publish_batch(connection, BATCH)
        rescans.append(publisher.rescanned)
        publisher.next_due(connection)

    assert rescans.count(False) > 1
    assert time.monotonic() - began >= 0.02 / POLLING_SHARE


def test_critical_that_comes_a_little_late_goes_before_a_backlog_of_default(
    connection: DbConnection, publisher: Publisher
) -> None:
    add_backlog(connection, 3)
    add_message(connection, queue="critical")
    publisher.publish_batch(connection, BATCH)
    late = add_late(connection, "critical")

    publisher.publish_batch(connection, BATCH)

    assert is_published(connection, late)


def test_a_batch_that_was_rolled_back_is_the_next_one_again(
    connection: DbConnection, no_rescans: Publisher, emptiable_redis_url: str
) -> None:
    add_backlog(connection, 3)
    all_ids = pending_ids(connection)
    no_rescans.publish_batch(connection, BATCH)
    with Redis.from_url(emptiable_redis_url) as client:
        client.config_set("min-replicas-to-write", "1")
        try:
            with pytest.raises(BrokerUnavailableError):
                no_rescans.publish_batch(connection, BATCH)
        finally:
            client.config_set("min-replicas-to-write", "0")

    no_rescans.publish_batch(connection, BATCH)

    assert pending_ids(connection) == all_ids[2 * BATCH :]
