"""A batch is shared out among destinations, and one that is unavailable, paused or numerous delays no other."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import Broker, open_broker
from outbox_relay.loop.publishing.publisher import Publisher
from shared.database.connections import DbConnection, connect
from shared.outbox.publishing import PROBES_OUT
from tests.outbox_relay.loop.publishing.publishers import publisher_to
from tests.outbox_relay.loop.publishing.test_cursors import NO_RESCAN, old_snapshot
from tests.rows import open_breaker, pending_entries_read


def add(
    connection: DbConnection, counts: dict[str | None, int], queue: str = "default", seconds_ago: float = 0
) -> None:
    """Add so many due messages for each destination."""
    for destination, count in counts.items():
        connection.execute(
            """
            INSERT INTO outbox (task, payload, queue, destination, due_at)
            SELECT 't', '{}', %s, %s, now() - make_interval(secs => %s) FROM generate_series(1, %s)
            """,
            [queue, destination, seconds_ago, count],
        )


def add_names(connection: DbConnection, names: int, messages: int, queue: str = "default") -> None:
    connection.execute(
        """
        INSERT INTO outbox (task, payload, queue, destination)
        SELECT 't', '{}', %s, 'webhook:' || name FROM generate_series(1, %s) AS name, generate_series(1, %s)
        """,
        [queue, names, messages],
    )


def pause(connection: DbConnection, destination: str) -> None:
    connection.execute("INSERT INTO outbox_destinations (name, paused_at) VALUES (%s, now())", [destination])


def published(connection: DbConnection) -> Counter[str | None]:
    rows = connection.execute("SELECT destination FROM outbox WHERE status = 'published'").fetchall()
    return Counter(name for (name,) in rows)


@pytest.fixture
def no_rescans(broker: Broker) -> Publisher:
    return publisher_to(broker, rescan_seconds=NO_RESCAN)


@pytest.mark.parametrize("queue", ["critical", "default"])
def test_a_batch_is_shared_out_and_what_one_does_not_use_goes_to_the_others(
    connection: DbConnection, publisher: Publisher, queue: str
) -> None:
    add(connection, {"a": 100, "b": 5, None: 100}, queue)

    assert publisher.publish_batch(connection, 30) == 30

    shares = published(connection)
    assert (shares["b"], abs(shares["a"] - shares[None]) <= 1) == (5, True)


def test_critical_goes_before_default_whatever_the_destinations(connection: DbConnection, publisher: Publisher) -> None:
    add(connection, {"a": 20})
    add(connection, {"b": 12, "c": 1}, "critical")

    publisher.publish_batch(connection, 15)

    assert published(connection) == {"b": 12, "c": 1, "a": 2}


def test_with_fewer_places_than_destinations_they_take_turns(connection: DbConnection, publisher: Publisher) -> None:
    add(connection, {"a": 5, "b": 5, "c": 5})

    for _ in range(6):
        assert publisher.publish_batch(connection, 1) == 1

    assert published(connection) == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_blocked_destination_with_many_messages_costs_the_others_nothing(
    connection: DbConnection, publisher: Publisher, *, is_paused: bool
) -> None:
    add(connection, {"blocked": 3000}, seconds_ago=60)
    add(connection, {"a": 50})
    if is_paused:
        pause(connection, "blocked")
    else:
        open_breaker(connection, "blocked", probe_in_seconds=60)
    before = pending_entries_read(connection)

    assert publisher.publish_batch(connection, 100) == 50

    assert published(connection) == {"a": 50}
    assert not publisher.has_more
    assert pending_entries_read(connection) - before < 100


def test_a_paused_destination_is_never_due_and_never_probed(connection: DbConnection, publisher: Publisher) -> None:
    add(connection, {"a": 3})
    open_breaker(connection, "a", probe_in_seconds=-1)
    connection.execute("UPDATE outbox_destinations SET paused_at = now()")

    assert publisher.publish_batch(connection, 10) == 0
    assert (publisher.has_more, publisher.next_due(connection)) == (False, None)


def test_messages_without_a_destination_go_while_another_one_is_unavailable(
    connection: DbConnection, publisher: Publisher
) -> None:
    add(connection, {None: 2, "mail": 2})
    open_breaker(connection, probe_in_seconds=60)

    publisher.publish_batch(connection, 10)

    assert published(connection) == {None: 2}


def test_a_destination_that_was_not_known_is_found_at_once_beside_an_old_snapshot(
    connection: DbConnection, no_rescans: Publisher, database_url: str
) -> None:
    with old_snapshot(database_url):
        add(connection, {"mail": 300, "a": 300}, seconds_ago=60)
        while no_rescans.publish_batch(connection, 50):
            pass
        before = pending_entries_read(connection)

        add(connection, {"b": 1, "0": 1})
        assert no_rescans.publish_batch(connection, 50) == 2
        no_rescans.next_due(connection)

        assert pending_entries_read(connection) - before < 30


def publish_all(connection: DbConnection, publisher: Publisher, size: int) -> int:
    total = 0
    while done := publisher.publish_batch(connection, size):
        total += done
        if not publisher.has_more:
            break
    return total


def test_more_destinations_than_a_pass_looks_at_take_turns(connection: DbConnection, broker: Broker) -> None:
    publisher = publisher_to(broker, rescan_seconds=NO_RESCAN, sources_searched=10)
    add_names(connection, 45, 3)

    firsts = sum(publisher.publish_batch(connection, 10) for _ in range(5))

    assert len(published(connection)) == 45
    assert firsts + publish_all(connection, publisher, 10) == 3 * 45


def test_mails_do_not_wait_for_the_turn_of_many_destinations(connection: DbConnection, broker: Broker) -> None:
    publisher = publisher_to(broker, sources_searched=10)
    add_names(connection, 100, 1)
    add_names(connection, 100, 1, "critical")
    add(connection, {"mail": 1, "zebra": 1}, "critical")

    publisher.publish_batch(connection, 20)

    assert published(connection)["mail"] == 1


def test_a_message_that_is_not_due_ends_the_search_among_many(connection: DbConnection, broker: Broker) -> None:
    publisher = publisher_to(broker, sources_searched=10)
    add_names(connection, 100, 1)
    connection.execute("UPDATE outbox SET due_at = now() + interval '1 hour' WHERE destination <> 'webhook:99'")

    total = 0
    while not publisher.looked_everywhere or total == 0:
        total += publisher.publish_batch(connection, 10)
        publisher.rescan()

    assert (total, published(connection)) == (1, {"webhook:99": 1})


def test_two_relays_publish_each_message_of_many_destinations_once(
    database_url: str, redis_url: str, connection: DbConnection
) -> None:
    add_names(connection, 30, 10)
    add(connection, {"mail": 100, None: 100})

    def drain() -> int:
        with (
            closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as broker,
            connect(database_url, "test") as own_connection,
        ):
            publisher = publisher_to(broker, sources_searched=10)
            total = 0
            while (done := publisher.publish_batch(own_connection, 20)) or not publisher.looked_everywhere:
                total += done
                publisher.rescan()
            return total

    with ThreadPoolExecutor() as pool:
        totals = list(pool.map(lambda _: drain(), range(2)))

    assert sum(totals) == 500
    with Redis.from_url(redis_url) as client:
        jobs = Queue("default", connection=client).job_ids
    assert (len(jobs), len(set(jobs))) == (500, 500)


def names_of_probes(connection: DbConnection) -> Sequence[str]:
    rows = connection.execute("SELECT name FROM outbox_destinations WHERE probe_id IS NOT NULL ORDER BY name")
    return [name for (name,) in rows]


def test_each_unavailable_destination_gets_a_probe_of_its_own_beside_the_others_messages(
    connection: DbConnection, publisher: Publisher
) -> None:
    add(connection, {"a": 2, "b": 2, "c": 2, "d": 2})
    for name in ("a", "b"):
        open_breaker(connection, name, probe_in_seconds=-1)
    open_breaker(connection, "c", probe_in_seconds=60)

    assert [publisher.publish_batch(connection, 10) for _ in range(2)] == [4, 0]

    assert published(connection) == {"a": 1, "b": 1, "d": 2}
    assert names_of_probes(connection) == ["a", "b"]


def test_only_so_many_probes_are_out_except_that_of_the_mail_server(
    connection: DbConnection, publisher: Publisher
) -> None:
    names = [f"w{number:02}" for number in range(PROBES_OUT + 3)]
    add(connection, dict.fromkeys([*names, "mail"], 1))
    for name in names:
        open_breaker(connection, name, probe_in_seconds=-1)
    first = publisher.publish_batch(connection, 100)
    probed = names_of_probes(connection)
    open_breaker(connection, probe_in_seconds=-1)
    add(connection, {"mail": 1})

    # The mail of the first batch was no probe: the breaker was closed.
    assert (first, len(probed)) == (PROBES_OUT + 1, PROBES_OUT)
    assert publisher.publish_batch(connection, 100) == 1
    assert names_of_probes(connection) == ["mail", *probed]


def test_a_probe_that_nobody_answers_is_followed_by_one_of_the_other_queue(
    connection: DbConnection, publisher: Publisher
) -> None:
    add(connection, {"a": 3}, seconds_ago=60)
    add(connection, {"a": 1}, "critical")
    open_breaker(connection, "a", probe_in_seconds=-1)
    publisher.publish_batch(connection, 10)
    connection.execute("UPDATE outbox_destinations SET probe_at = clock_timestamp() - interval '1 s'")

    publisher.publish_batch(connection, 10)

    rows = connection.execute("SELECT queue FROM outbox WHERE status = 'published' ORDER BY published_at").fetchall()
    assert [queue for (queue,) in rows] == ["default", "critical"]
