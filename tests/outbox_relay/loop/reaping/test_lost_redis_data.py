"""Redis lost its data or was replaced: its epoch shows it, and every message that was lost is pushed again."""

from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from embedded.servers.redis import RedisServer
from outbox_relay.broker import Broker, BrokerUnavailableError, open_broker
from outbox_relay.loop.reaper import Reaper, SweepResult
from shared.database.connections import transaction
from shared.outbox import publishing
from shared.rq_format.ids import job_id
from tests.outbox_relay.loop.reaping.publishing import LEASE, jobs, publish
from tests.rows import add_message, message
from tests.taking import take_jobs

Connection = psycopg.Connection[tuple[Any, ...]]


def test_a_hash_that_cannot_be_deleted_hides_no_return(
    connection: Connection, broker: Broker, reaper: Reaper, monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    add_message(connection)
    publish(connection, broker)
    redis.flushall()

    def away(*_: object) -> None:
        raise BrokerUnavailableError("Redis cannot be used: TimeoutError")

    monkeypatch.setattr(Broker, "delete_orphans", away)

    assert reaper.reap_published(connection).returned_by_epoch == 1


def test_a_replica_is_not_asked_what_redis_holds(broker: Broker, own_redis: RedisServer, redis_url: str) -> None:
    primary = urlsplit(redis_url)
    with own_redis.client() as client:
        client.config_set("masterauth", str(primary.password))
        client.replicaof(str(primary.hostname), primary.port)
    with closing(open_broker(own_redis.url, RQ_KEY_PREFIX, 60)) as of_replica:
        with pytest.raises(BrokerUnavailableError, match="this is a replica: its data may be older"):
            of_replica.epoch()
        with pytest.raises(BrokerUnavailableError, match="this is a replica: its data may be older"):
            of_replica.read_lists(set())
    assert broker.epoch()


def test_an_emptied_redis_is_noticed_at_once_and_everything_is_pushed_again(
    connection: Connection, broker: Broker, reaper: Reaper, redis: Redis
) -> None:
    ids = [add_message(connection) for _ in range(3)]
    publish(connection, broker)
    redis.flushall()

    found = reaper.reap_published(connection)
    publish(connection, broker)

    assert found == SweepResult(returned_by_epoch=3)
    assert jobs(redis) == [job_id(id_, 1) for id_ in ids]


def test_a_wipe_between_push_and_commit_is_noticed(
    connection: Connection, broker: Broker, reaper: Reaper, redis: Redis
) -> None:
    id_ = add_message(connection)
    with transaction(connection):
        rows = take_jobs(connection, 10)
        epoch = broker.push(rows)
        redis.flushall()
        publishing.mark_published(connection, [id_], epoch, LEASE)

    assert reaper.reap_published(connection) == SweepResult(returned_by_epoch=1)


def test_another_relay_s_push_after_a_wipe_does_not_hide_it(
    connection: Connection, broker: Broker, reaper: Reaper, redis: Redis
) -> None:
    lost = add_message(connection)
    publish(connection, broker)
    redis.flushall()
    fresh = add_message(connection)
    publish(connection, broker)

    assert reaper.reap_published(connection) == SweepResult(returned_by_epoch=1)
    assert [message(connection, each)["generation"] for each in (lost, fresh)] == [1, 0]


def test_a_restart_that_kept_its_data_costs_a_new_lease_and_no_push(
    connection: Connection, own_redis: RedisServer
) -> None:
    add_message(connection)
    with closing(open_broker(own_redis.url, RQ_KEY_PREFIX, 60)) as broker:
        publish(connection, broker)
        own_redis.restart()
        epoch = broker.epoch()

        found = Reaper(broker, publish_lease_seconds=LEASE).reap_published(connection)

    assert found == SweepResult(renewed=1)
    assert connection.execute("SELECT broker_epoch FROM outbox").fetchone() == (epoch,)


def test_a_restart_with_older_data_returns_what_it_lost(connection: Connection, own_redis: RedisServer) -> None:
    kept, lost = add_message(connection), add_message(connection, due_at="2100-01-01T00:00:00Z")
    own_redis.append_only = False
    own_redis.restart()
    with closing(open_broker(own_redis.url, RQ_KEY_PREFIX, 60)) as broker:
        publish(connection, broker)
        with own_redis.client() as client:
            client.save()
        connection.execute("UPDATE outbox SET due_at = now() WHERE id = %s", [lost])
        publish(connection, broker)
        own_redis.kill()
        own_redis.start()

        found = Reaper(broker, publish_lease_seconds=LEASE).reap_published(connection)

    assert found == SweepResult(renewed=1, returned_by_epoch=1)
    assert [message(connection, each)["status"] for each in (kept, lost)] == ["published", "pending"]
