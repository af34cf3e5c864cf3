"""Messages that are published, and the jobs that Redis holds for them."""

from typing import Any

from psycopg import Connection
from redis import Redis
from rq import Queue

from outbox_relay.broker import Broker
from outbox_relay.loop.publishing.publisher import Publisher

LEASE = 30.0


def publish(connection: Connection[Any], broker: Broker) -> None:
    Publisher(broker, publish_lease_seconds=LEASE, probe_timeout_seconds=60).publish_batch(connection, 1000)


def jobs(redis: Redis) -> list[str]:
    return Queue("default", connection=redis).job_ids
