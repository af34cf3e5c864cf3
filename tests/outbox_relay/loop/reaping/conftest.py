"""A reaper, and the Redis that it reads."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from redis import Redis
from rq.defaults import RQ_KEY_PREFIX

from outbox_relay.broker import Broker, open_broker
from outbox_relay.loop.reaper import Reaper
from tests.clock import Clock
from tests.outbox_relay.loop.reaping.publishing import LEASE


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def redis(emptiable_redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(emptiable_redis_url) as client:
        yield client


@pytest.fixture
def broker(emptiable_redis_url: str) -> Iterator[Broker]:
    with closing(open_broker(emptiable_redis_url, RQ_KEY_PREFIX, 60)) as open_broker_:
        yield open_broker_


@pytest.fixture
def reaper(broker: Broker, clock: Clock) -> Reaper:
    return Reaper(broker, publish_lease_seconds=LEASE, clock=clock)
