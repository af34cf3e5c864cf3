"""Of a destination that is limited or slow few messages are published at a time, and few in a second."""

from typing import LiteralString

import pytest

from outbox_relay.loop.publishing.publisher import Publisher
from outbox_relay.loop.publishing.windows import FULL_WINDOW_SECONDS, SMALLEST_WINDOW, Windows
from shared.database.connections import DbConnection
from shared.outbox.discovery import CURSOR_AT_START, Source, discover
from tests.clock import Clock
from tests.outbox_relay.loop.publishing.test_destinations import add, published
from tests.rows import add_message

SOURCE = Source("default", "a")


def set_limits(connection: DbConnection, columns: LiteralString, values: LiteralString) -> None:
    connection.execute(f"INSERT INTO outbox_destinations (name, {columns}) VALUES ('a', {values})")


@pytest.mark.parametrize(
    ("columns", "values", "window"),
    [
        ("max_per_second", "0.1", SMALLEST_WINDOW),
        ("max_per_second", "5", 25),
        ("slow_at", "now()", SMALLEST_WINDOW),
        ("max_in_flight", "2", SMALLEST_WINDOW),
        ("slow_at", "now() - interval '1 minute'", 60),
        ("max_per_second", "1000000", 60),
    ],
)
def test_a_full_window_keeps_no_other_destination_and_lets_the_relay_sleep(
    connection: DbConnection, publisher: Publisher, columns: LiteralString, values: LiteralString, window: int
) -> None:
    add(connection, {"a": 60, "b": 60})
    set_limits(connection, columns, values)

    counts = [publisher.publish_batch(connection, 1000) for _ in range(2)]

    assert (sum(counts), published(connection)) == (60 + window, {"a": window, "b": 60})
    if window < 60:
        assert not publisher.has_more
        assert 0 < (publisher.next_due(connection) or 0) <= FULL_WINDOW_SECONDS


def room(connection: DbConnection, windows: Windows) -> int:
    return windows.rooms(connection, discover(connection, {SOURCE: CURSOR_AT_START}).heads, 1000)[SOURCE]


def publish(connection: DbConnection, windows: Windows, count: int) -> list[int]:
    ids = [add_message(connection, "t", status="published", destination="a") for _ in range(count)]
    windows.published(SOURCE, ids)
    return ids


def test_what_workers_release_comes_back_at_a_pace(connection: DbConnection) -> None:
    clock = Clock()
    windows = Windows(clock)
    add(connection, {"a": 1})
    set_limits(connection, "max_per_second", "1")
    first = room(connection, windows)
    publish(connection, windows, first)
    connection.execute(
        "UPDATE outbox SET status = 'pending', broker_epoch = NULL, lease_until = NULL WHERE status = 'published'"
    )

    rooms = []
    for _ in range(3):
        clock.now += 1
        rooms.append(room(connection, windows))
        publish(connection, windows, rooms[-1])
        connection.execute(
            "UPDATE outbox SET status = 'pending', broker_epoch = NULL, lease_until = NULL WHERE status = 'published'"
        )

    assert (first, rooms) == (SMALLEST_WINDOW, [2, 2, 2])


def test_the_window_of_a_slow_destination_follows_what_it_finishes(connection: DbConnection) -> None:
    clock = Clock()
    windows = Windows(clock)
    add(connection, {"a": 1})
    set_limits(connection, "slow_at", "now()")
    rooms = []
    for _ in range(12):
        rooms.append(room(connection, windows))
        publish(connection, windows, rooms[-1])
        connection.execute("DELETE FROM outbox WHERE status = 'published'")  # all of them finish
        clock.now += 1
    assert rooms[0] == SMALLEST_WINDOW
    assert rooms[-1] > 5 * SMALLEST_WINDOW

    # None finishes any more.
    publish(connection, windows, room(connection, windows))
    for _ in range(12):
        clock.now += 1
        room(connection, windows)
    assert room(connection, windows) == 0
