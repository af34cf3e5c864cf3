import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from redis import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX

from embedded.programs.ports import free_port
from embedded.servers.redis import RedisServer
from outbox_relay.broker import Broker, BrokerUnavailableError, open_broker
from outbox_relay.loop.publishing.publisher import Publisher
from shared.database.connections import connect, transaction
from shared.outbox import publishing
from shared.outbox.messages import JobRef
from shared.outbox.publishing import from_start
from shared.rq_format.ids import job_id
from tests.failover.demotion import demotable_redis
from tests.outbox_relay.loop.publishing.publishers import LEASE, publisher_to
from tests.rows import add_message, message, open_breaker
from tests.taking import take_jobs

Connection = psycopg.Connection[tuple[Any, ...]]


def jobs(redis_url: str, queue: str) -> list[str]:
    with Redis.from_url(redis_url) as client:
        return Queue(queue, connection=client).job_ids


def add_messages(connection: Connection, count: int, queue: str = "default") -> list[int]:
    rows = connection.execute(
        "INSERT INTO outbox (task, payload, queue, destination)"
        " SELECT 't', '{}', %s, 'mail' FROM generate_series(1, %s) RETURNING id",
        [queue, count],
    )
    return [id_ for (id_,) in rows]


def test_a_published_message_is_on_its_queue_with_a_lease_and_an_epoch(
    connection: Connection, publisher: Publisher, broker: Broker, redis_url: str
) -> None:
    id_ = add_message(connection, queue="critical")

    published = publisher.publish_batch(connection, 10)

    row = message(connection, id_)
    assert (published, jobs(redis_url, "critical")) == (1, [job_id(id_, 0)])
    assert (row["status"], row["generation"], row["attempt"]) == ("published", 0, 0)
    assert row["broker_epoch"] == broker.epoch()
    assert (row["lease_until"] - row["published_at"]).total_seconds() == pytest.approx(LEASE, abs=0.1)


def test_critical_goes_before_default_and_the_oldest_first(
    connection: Connection, publisher: Publisher, redis_url: str
) -> None:
    late = add_message(connection, queue="default")
    early = add_message(connection, queue="default", due_at="2020-01-01T00:00:00Z")
    critical = add_message(connection, queue="critical")

    for _ in range(2):
        publisher.publish_batch(connection, 1)

    assert jobs(redis_url, "critical") == [job_id(critical, 0)]
    assert jobs(redis_url, "default") == [job_id(early, 0)]
    assert message(connection, late)["status"] == "pending"


def test_no_more_rows_are_locked_than_are_taken(connection: Connection, database_url: str) -> None:
    criticals, defaults = add_messages(connection, 3, "critical"), add_messages(connection, 6)

    with closing(connect(database_url, "another relay")) as another, transaction(connection), transaction(another):
        wanted = [from_start(queue, "mail", 2) for queue in ("critical", "default")]
        taken = [publishing.take_batch(each, wanted) for each in (connection, another)]
        left = publishing.take_batch(another, [wanted[1]._replace(cursor=taken[1][1].cursor, places=10)])

    assert [[[job.id for job in part.jobs] for part in parts] for parts in [*taken, left]] == [
        [criticals[:2], defaults[:2]],
        [criticals[2:], defaults[2:4]],
        [defaults[4:]],
    ]


@pytest.mark.parametrize(("waited_seconds", "published"), [(31, (18, 2)), (29, (20, 0))])
def test_a_critical_queue_that_never_empties_leaves_a_tenth_to_what_has_waited_long(
    connection: Connection, publisher: Publisher, redis_url: str, waited_seconds: int, published: tuple[int, int]
) -> None:
    add_messages(connection, 50, "default")
    connection.execute("UPDATE outbox SET due_at = now() - make_interval(secs => %s)", [waited_seconds])
    add_messages(connection, 100, "critical")

    publisher.publish_batch(connection, 20)

    assert (len(jobs(redis_url, "critical")), len(jobs(redis_url, "default"))) == published


def test_a_message_is_not_published_before_it_is_due(connection: Connection, publisher: Publisher) -> None:
    id_ = add_message(connection, due_at="2100-01-01T00:00:00Z")

    assert publisher.publish_batch(connection, 10) == 0
    assert message(connection, id_)["status"] == "pending"


def test_a_head_that_waits_does_not_block_the_rows_behind_it(connection: Connection, publisher: Publisher) -> None:
    head = add_message(connection, due_at="2100-01-01T00:00:00Z")
    behind = add_message(connection)

    publisher.publish_batch(connection, 10)

    assert [message(connection, each)["status"] for each in (head, behind)] == ["pending", "published"]


def test_an_absent_redis_leaves_the_messages_pending(connection: Connection) -> None:
    id_ = add_message(connection)
    broker = open_broker(f"redis://127.0.0.1:{free_port()}/0", RQ_KEY_PREFIX, 60)

    with closing(broker), pytest.raises(BrokerUnavailableError):
        publisher_to(broker).publish_batch(connection, 10)

    assert message(connection, id_)["status"] == "pending"


def push_and_fail(connection: Connection, broker: Broker) -> None:
    broker.push(take_jobs(connection, 10))
    connection.execute("SELECT 1 / 0")


def test_a_push_repeated_after_a_rollback_repeats_the_id(
    connection: Connection, publisher: Publisher, broker: Broker, redis_url: str
) -> None:
    id_ = add_message(connection)
    with pytest.raises(psycopg.errors.DivisionByZero), transaction(connection):
        push_and_fail(connection, broker)

    publisher.publish_batch(connection, 10)

    assert jobs(redis_url, "default") == [job_id(id_, 0)] * 2


def test_a_row_that_is_no_longer_pending_is_not_marked_published(connection: Connection) -> None:
    id_ = add_message(connection, status="running")

    assert publishing.mark_published(connection, [id_], "epoch", LEASE) == 0
    assert message(connection, id_)["status"] == "running"


def test_two_relays_publish_every_message_once(database_url: str, redis_url: str, connection: Connection) -> None:
    ids = add_messages(connection, 500)
    start = threading.Barrier(2)

    def drain() -> int:
        total = 0
        with (
            closing(open_broker(redis_url, RQ_KEY_PREFIX, 60)) as broker,
            connect(database_url, "test") as own_connection,
        ):
            publisher = publisher_to(broker)
            start.wait()
            while published := publisher.publish_batch(own_connection, 20):
                total += published
        return total

    with ThreadPoolExecutor() as pool:
        totals = list(pool.map(lambda _: drain(), range(2)))

    assert sum(totals) == 500
    assert sorted(jobs(redis_url, "default")) == sorted(job_id(id_, 0) for id_ in ids)


def test_a_locked_row_is_left_to_who_holds_it(connection: Connection, publisher: Publisher, database_url: str) -> None:
    held, free = add_messages(connection, 2)
    with connect(database_url, "test") as other, other.transaction():
        other.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [held])

        publisher.publish_batch(connection, 10)

    assert [message(connection, each)["status"] for each in (held, free)] == ["pending", "published"]


def test_an_open_breaker_lets_one_probe_through_and_nothing_else(
    connection: Connection, publisher: Publisher, redis_url: str
) -> None:
    first, _ = add_messages(connection, 2)
    open_breaker(connection, probe_in_seconds=-1)

    published = [publisher.publish_batch(connection, 10) for _ in range(3)]

    assert (published, jobs(redis_url, "default")) == ([1, 0, 0], [job_id(first, 0)])
    assert connection.execute("SELECT probe_id FROM outbox_destinations").fetchone() == (first,)


def test_a_probe_goes_before_the_jobs_that_wait_already(
    connection: Connection, publisher: Publisher, redis_url: str
) -> None:
    waiting = add_messages(connection, 2)
    publisher.publish_batch(connection, 10)
    [probe] = add_messages(connection, 1)
    open_breaker(connection, probe_in_seconds=-1)

    publisher.publish_batch(connection, 10)

    assert jobs(redis_url, "default") == [job_id(id_, 0) for id_ in (probe, *waiting)]


def test_probes_take_turns_whatever_their_queue(connection: Connection, publisher: Publisher) -> None:
    urgent = [add_message(connection, queue="critical") for _ in range(2)]
    [later] = add_messages(connection, 1)
    probes = []
    for _ in range(6):
        open_breaker(connection, probe_in_seconds=-1)
        publisher.publish_batch(connection, 10)
        [(probe,)] = connection.execute("SELECT probe_id FROM outbox_destinations").fetchall()
        probes.append(probe)
        # As when it is put back.
        connection.execute(
            "UPDATE outbox SET status = 'pending', generation = generation + 1, due_at = clock_timestamp(),"
            " lease_until = NULL WHERE id = %s",
            [probe],
        )

    assert probes == [*urgent, later] * 2


def test_an_open_breaker_lets_nothing_through_before_its_time(connection: Connection, publisher: Publisher) -> None:
    add_messages(connection, 2)
    open_breaker(connection, probe_in_seconds=60)

    assert publisher.publish_batch(connection, 10) == 0


def test_the_push_after_a_refused_one_goes_where_the_name_leads(tmp_path: Path) -> None:
    with demotable_redis(tmp_path) as redis, closing(open_broker(redis.url, RQ_KEY_PREFIX, 60)) as broker:
        broker.push([JobRef(1, 0, "default")])
        redis.demote()

        with pytest.raises(BrokerUnavailableError):
            broker.push([JobRef(2, 0, "default")])
        broker.push([JobRef(2, 0, "default")])

        with redis.second.client() as client:
            assert Queue("default", connection=client).job_ids == [job_id(1, 0), job_id(2, 0)]


def test_a_frozen_redis_rolls_the_batch_back_within_seconds(connection: Connection, own_redis: RedisServer) -> None:
    id_ = add_message(connection)
    broker = open_broker(own_redis.url, RQ_KEY_PREFIX, 60)
    with closing(broker), own_redis.client() as client:
        client.client_pause(10_000)

        with pytest.raises(BrokerUnavailableError):
            publisher_to(broker).publish_batch(connection, 10)

    assert message(connection, id_)["status"] == "pending"


def test_a_log_line_holds_at_most_a_hundred_ids(connection: Connection, publisher: Publisher) -> None:
    ids = add_messages(connection, 250)

    with structlog.testing.capture_logs() as logs:
        publisher.publish_batch(connection, 1000)

    lines = [line["message_ids"] for line in logs if line["event"] == "messages.published"]
    assert [len(line) for line in lines] == [100, 100, 50]
    assert [id_ for line in lines for id_ in line] == ids
